#include "early_stages.hpp"

#include <algorithm>

namespace moefy {
namespace {

/// The same shares of a subsample of `num_selected` rows.
Capacities scaled_capacities(const KMeansContext& context, std::size_t num_selected) {
  const std::size_t num_rows = context.num_rows();
  if (num_selected == num_rows) return context.capacities;
  std::vector<SizeBounds> bounds;
  for (const SizeBounds& whole : context.capacities.bounds()) {
    bounds.push_back({whole.lower * num_selected / num_rows,
                      (whole.upper * num_selected + num_rows - 1) / num_rows});
  }
  return Capacities::bounded(std::move(bounds));
}

}  // namespace

RowSelection start_selection(const KMeansContext& context) {
  constexpr std::size_t kThinning = 4;
  constexpr std::size_t kRowsPerSite = 24;
  const std::size_t most = context.num_rows() / (kRowsPerSite * context.num_sites);
  return {std::clamp<std::size_t>(most, 1, kThinning)};
}

std::int64_t run_early_stage(const KMeansContext& context, const EarlyStage& stage,
                             Clustering& clustering) {
  const std::size_t count = stage.selection.count(context.num_rows());
  const Capacities capacities = scaled_capacities(context, count);
  const CostView q = context.backend.cost_buffer(0, count, context.num_sites);
  std::vector<std::int32_t> label(count);
  std::int64_t cost = 0;
  clustering.label.clear();
  for (int iteration = 0; iteration < stage.max_iterations; ++iteration) {
    context.check_stop();
    context.times.measure("approximate costs", [&] {
      context.backend.approximate_costs(context.points, stage.selection,
                                        clustering.centroids->view(), context.cost_scale_log2, q);
    });
    context.times.measure("balance loosely", [&] {
      if (iteration < stage.loose_iterations) {
        context.solver.relax(q, capacities, stage.price_passes, stage.damping, clustering.prices,
                             label);
      } else {
        context.solver.solve(q, capacities, false, clustering.prices, label);
      }
    });
    cost = context.backend.total_cost(q, label);
    const std::size_t changed = assign_labels(context, stage.selection, label, clustering);
    update_centroids(context, true, clustering);
    if (iteration > 0 &&
        static_cast<double>(changed) < stage.stop_share * static_cast<double>(count)) {
      break;
    }
  }
  return cost;
}

}  // namespace moefy
