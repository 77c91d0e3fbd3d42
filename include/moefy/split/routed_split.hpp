#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

#include "moefy/model/calibration_tokens.hpp"
#include "moefy/router/ridge_router.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

/// Joint refinement of partition and router on the inputs of a layer (docs/architecture.md,
/// "Routed split"): start from shared neurons by energy and balanced k-means on the gate rows, then
/// in turn fit the router and move every neuron to the expert that is chosen when it matters.
struct RoutedSplitConfig {
  std::int64_t top_k = 0;     ///< routed experts a token, 1 .. experts
  int rounds = 4;             ///< reassignments at most; ends when 99 % of the labels stay
  double router_ridge = 1.0;  ///< relative to the mean diagonal
};

struct RoutedSplit {
  std::vector<std::int32_t> label;  ///< [num_neurons]; kSharedLabel for always-on neurons
  RouterWeights router;             ///< fitted to the final labels
  std::vector<double>
      lost_energy;  ///< weighted energy of skipped neurons: before each reassignment
                    ///< and after it, for the routing it was solved for, in turn
};

/// `token_weight` [num_tokens]: what an error on a token counts. `split` gives experts, shared
/// experts, sizes and the k-means' options. Throws InputError (NaN, infeasible), Interrupted.
RoutedSplit split_by_routing(CalibrationTokens& tokens, std::span<const float> token_weight,
                             const SplitConfig& split, const RoutedSplitConfig& routed,
                             SplitWorkspace& workspace, std::stop_token stop);

/// Neurons of each of `num_experts` experts, ascending.
std::vector<std::vector<std::int32_t>> members_by_expert(std::span<const std::int32_t> label,
                                                         std::size_t num_experts);

}  // namespace moefy
