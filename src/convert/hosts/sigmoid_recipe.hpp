#pragma once

#include <string>
#include <string_view>

#include "abilities.hpp"
#include "host.hpp"

namespace moefy {

// What hosts share that descend from DeepSeek-V3: every chosen expert weighs 2 · sigmoid(logit),
// which is one where logits are small, whatever the counts. Top-k stays editable, a selection bias
// has a place, and shared experts are each as wide as a routed one.

/// What all of them carry.
Abilities sigmoid_abilities();
Obstacles sigmoid_obstacles(const Abilities& abilities, const ConversionPlan& plan,
                            const Family& family);
std::string sigmoid_reason(const ConversionPlan& plan);

/// Fills tensors and factors. `selection_bias`: its name on disk behind "model.layers.N.mlp.".
void build_sigmoid_layers(ConversionPlan& plan, const Family& family,
                          std::string_view selection_bias = "gate.e_score_correction_bias");
/// JSON text: the fields that all of these classes read, to which a host adds its own.
std::string sigmoid_config(const ConversionPlan& plan, const Family& family,
                           std::string_view architecture, std::string_view model_type);

}  // namespace moefy
