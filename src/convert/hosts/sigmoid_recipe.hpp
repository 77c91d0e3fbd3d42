#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "host.hpp"

namespace moefy {

// What hosts share that descend from DeepSeek-V3: every chosen expert weighs 2 · sigmoid(logit),
// which is one where logits are small, whatever the counts. Top-k stays editable, a selection bias
// has a place, and shared experts are each as wide as a routed one.

/// Layers before the first that is converted; -1 if others stay dense, too.
std::int64_t leading_dense_layers(const ConversionPlan& plan);

/// Adds what none of these hosts has: a sliding window, norms that are to be offset, a single
/// expert.
void add_sigmoid_obstacles(const ConversionPlan& plan, const Family& family, Obstacles& found);
/// Adds a problem unless the dense layers come first.
void add_prefix_obstacle(const ConversionPlan& plan, Obstacles& found);
std::string sigmoid_reason(const ConversionPlan& plan);

/// Fills tensors and factors. `selection_bias`: its name on disk behind "model.layers.N.mlp.".
void build_sigmoid_layers(ConversionPlan& plan, const Family& family,
                          std::string_view selection_bias = "gate.e_score_correction_bias");
/// JSON text: the fields that all of these classes read, to which a host adds its own.
std::string sigmoid_config(const ConversionPlan& plan, const Family& family,
                           std::string_view architecture, std::string_view model_type);

}  // namespace moefy
