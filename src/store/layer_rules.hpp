#pragma once

#include <optional>
#include <string>

#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// What the arrays of a layer must agree on wherever it is kept: shapes of centroids, prices and
/// router, finite values. The first broken rule, or nothing.
std::optional<std::string> find_layer_problem(const LayerResult& layer);

}  // namespace moefy
