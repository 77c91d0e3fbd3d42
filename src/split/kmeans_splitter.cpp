#include <algorithm>
#include <cmath>
#include <numeric>

#include "clustered_rows.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// New number of each expert so that they ascend by their smallest neuron: a cold start then does
/// not show in which order its centres were drawn.
std::vector<std::int32_t> numbers_by_first_row(std::span<const std::int32_t> label,
                                               std::size_t experts) {
  std::vector<std::int32_t> number(experts, -1);
  std::int32_t next = 0;
  for (const std::int32_t expert : label) {
    std::int32_t& slot = number[static_cast<std::size_t>(expert)];
    if (slot < 0) slot = next++;
  }
  for (std::int32_t& slot : number)
    if (slot < 0) slot = next++;  // experts that may be empty come last
  return number;
}

void renumber(BalancedKMeansResult& clustering, std::span<const std::int32_t> number) {
  for (std::int32_t& label : clustering.label) label = number[static_cast<std::size_t>(label)];
  Matrix<float> centroids(clustering.centroids.rows(), clustering.centroids.cols());
  std::vector<std::int32_t> prices(clustering.prices.size());
  for (std::size_t old = 0; old < number.size(); ++old) {
    const auto now = static_cast<std::size_t>(number[old]);
    std::ranges::copy(clustering.centroids.row(old), centroids.row(now).begin());
    prices[now] = clustering.prices[old];
  }
  clustering.centroids = std::move(centroids);
  clustering.prices = std::move(prices);
}

/// Labels of an older map's layer by row of the clustered matrix.
WarmStart warm_start(const SplitTask& task, const ClusteredRows& clustered) {
  const LayerResult& old = *task.start;
  if (old.partition.num_neurons() != static_cast<std::size_t>(task.layer.num_neurons) ||
      old.partition.num_experts() != static_cast<std::size_t>(task.config.experts) ||
      old.partition.num_shared() != 0 || task.config.shared != 0) {
    throw UsageError(
        "--init-from: the map's layer has other numbers of neurons or experts, shared experts, or "
        "experts that share neurons");
  }
  WarmStart start;
  for (const std::int32_t neuron : clustered.neuron)
    start.label.push_back(old.partition.labels()[static_cast<std::size_t>(neuron)]);
  start.prices = old.prices;
  return start;
}

class KMeansSplitter : public Splitter {
 public:
  std::string name() const override { return "kmeans"; }

  LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const override {
    const ClusteredRows clustered = prepare_rows(task, workspace);
    const Capacities capacities =
        routed_capacities(task.config, static_cast<std::size_t>(task.layer.num_neurons));
    BalancedKMeansResult clustering;
    const auto layer = static_cast<std::uint64_t>(task.layer.index);
    if (task.start) {
      const WarmStart start = warm_start(task, clustered);
      clustering = workspace.kmeans.run(clustered.rows, capacities, task.config.kmeans, layer,
                                        &start, task.stop);
    } else {
      clustering = workspace.kmeans.run(clustered.rows, capacities, task.config.kmeans, layer,
                                        nullptr, task.stop);
      // Sizes that the user gave by expert keep their experts.
      if (task.config.sizes.find(',') == std::string::npos)
        renumber(clustering, numbers_by_first_row(clustering.label,
                                                  static_cast<std::size_t>(task.config.experts)));
    }
    LayerResult result = begin_result(task, clustered, clustering.label);
    result.method = name();
    describe(result, clustering);
    attach_router(result, task, workspace, clustering.label);
    return result;
  }

 private:
  static void describe(LayerResult& result, BalancedKMeansResult& clustering) {
    result.centroids = std::move(clustering.centroids);
    for (const std::int32_t price : clustering.prices)
      result.prices.push_back(std::ldexp(static_cast<double>(price), -clustering.cost_scale_log2));
    result.inertia = clustering.inertia;
    result.inertia_initial = clustering.inertia_initial;
    result.inertia_random = clustering.inertia_random;
    result.inertia_unconstrained = clustering.inertia_unconstrained;
    result.zero_rows = clustering.zero_rows;
    result.duality_gap = clustering.duality_gap;
    result.cost_scale_log2 = clustering.cost_scale_log2;
    result.iterations = static_cast<std::int64_t>(clustering.trace.size());
    result.converged = clustering.stop_reason != StopReason::cap;
    result.stop_reason = clustering.stop_reason;
    result.inertia_trace = std::move(clustering.trace);
    for (const SolverStatistics& step : clustering.steps) {
      result.augmentations.push_back(step.augmentations);
      result.surplus.push_back(step.surplus);
    }
    result.seconds = std::move(clustering.seconds);
  }
};

}  // namespace

std::unique_ptr<Splitter> make_kmeans_splitter() { return std::make_unique<KMeansSplitter>(); }

}  // namespace moefy
