#pragma once

#include <span>
#include <string>

#include "moefy/report/layer_figures.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// How the layers whose experts share neurons cover them: coverage, duplicates, overlaps of the
/// experts and the omitted neurons. Empty for a map of partitions. `figures` are those of
/// map.layers, in order.
std::string sharing_html(const ExpertMap& map, std::span<const LayerFigures> figures);

}  // namespace moefy
