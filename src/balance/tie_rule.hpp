#pragma once

#include "flow_state.hpp"

namespace moefy {

/// Replaces optimal labels by the lexicographically smallest optimal ones: the smallest label that
/// row 0 has in any optimum, then row 1, … The result depends on costs and capacities only. Prices
/// must be optimal and normalised.
template <class Cost>
void make_canonical(const SiteCosts<Cost>& costs, FlowState<Cost>& state);

}  // namespace moefy
