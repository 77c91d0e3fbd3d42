#pragma once

#include <string_view>

#include "abilities.hpp"
#include "host.hpp"

namespace moefy {

// What granitemoe and granitemoeshared share: multipliers, biases on all of the attention, and
// weights that are a softmax over the chosen k, so that down carries the factor k.

Obstacles granite_obstacles(const ConversionPlan& plan, const Family& family, bool shared_experts);
std::string granite_reason(const ConversionPlan& plan);
/// Fills tensors and factors, without shared experts.
void build_granite_layers(ConversionPlan& plan, const Family& family);
/// JSON text: the fields that both classes read.
std::string granite_config(const ConversionPlan& plan, const Family& family,
                           std::string_view architecture, std::string_view model_type);

}  // namespace moefy
