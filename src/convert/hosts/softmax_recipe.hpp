#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "host.hpp"

namespace moefy {

// What hosts share whose expert weights are a softmax: over all E experts (down x E, top-k stays
// editable) or, `normalized`, over the chosen k (down x k).

/// Adds why the factor is no power of two, if it is none.
void add_softmax_obstacles(const ConversionPlan& plan, bool normalized, Obstacles& found);
/// Adds why top-k is no factor, if it is no power of two.
void add_top_k_obstacle(const ConversionPlan& plan, Obstacles& found);
std::string softmax_reason(const ConversionPlan& plan, bool normalized);

}  // namespace moefy
