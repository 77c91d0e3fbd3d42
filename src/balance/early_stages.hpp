#pragma once

#include "kmeans_context.hpp"

namespace moefy {

/// Iterations on approximate (int8) costs that choose the start of the exact EM.
struct EarlyStage {
  RowSelection selection;
  int max_iterations = 1;
  int loose_iterations = 1;  ///< of these: sizes only nearly right, by price passes; then exact
  int price_passes = 1;      ///< of a loose iteration
  double damping = 0.5;
  double stop_share = 0.01;  ///< ends when fewer rows change
};

/// Runs from clustering.centroids and .prices; labels are then those of the selected rows. Returns
/// the cost of the last iteration, in quanta.
std::int64_t run_early_stage(const KMeansContext& context, const EarlyStage& stage,
                             Clustering& clustering);

/// Thinning of the subsample on which starts are chosen: every 4th block, fewer where that would
/// leave less than 24 rows a site.
RowSelection start_selection(const KMeansContext& context);

}  // namespace moefy
