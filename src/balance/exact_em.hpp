#pragma once

#include "kmeans_context.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// How the exact EM went, and its proof.
struct EmOutcome {
  StopReason stop_reason = StopReason::cap;
  std::vector<std::int64_t> trace;  ///< Q of every fp32 E-step
  std::vector<SolverStatistics> steps;
  std::int64_t columns = 0;  ///< of fp32 costs that were computed
  Certificate certificate;   ///< of the final labels, centroids and prices
};

/// Capacity-constrained EM from clustering.centroids (and labels, if they are feasible) to the
/// fixpoint: exact assignment on fp32 costs, with the int8 change of cost between two of them.
/// Afterwards the centroids are the means of the labels.
EmOutcome run_exact_em(const KMeansContext& context, int max_iterations, Clustering& clustering);

}  // namespace moefy
