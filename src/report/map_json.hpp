#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "moefy/report/layer_figures.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// null for what is absent or not finite: JSON has no NaN.
nlohmann::json json_number(const std::optional<double>& value);
/// Text that is not UTF-8 gets replacement characters instead of an exception.
std::string dump_json(const nlohmann::json& value);

nlohmann::json header_json(const ExpertMap& map);
/// Scalars of a layer and its figures, no arrays of neurons.
nlohmann::json layer_json(const LayerResult& layer, const LayerFigures& figures);

}  // namespace moefy
