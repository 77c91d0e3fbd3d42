#include <utility>

#include "clustered_rows.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

void describe_labels(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace,
                     const ClusteredRows& clustered, std::span<const std::int32_t> row_label) {
  const std::size_t experts = result.partition.num_experts();
  LabelFigures figures = figures_of_labels(workspace.backend, clustered.rows, row_label, experts);
  result.inertia = result.inertia_initial = figures.inertia;
  result.inertia_random = figures.inertia_random;
  result.zero_rows = figures.zero_rows;
  result.centroids = std::move(figures.centroids);
  result.prices.assign(experts, 0.0);
  result.stop_reason = StopReason::not_clustered;
  result.cost_scale_log2 = cost_scale_of(workspace.backend, clustered.rows);
  const Capacities capacities =
      routed_capacities(task.config, static_cast<std::size_t>(task.layer.num_neurons));
  const ClusteringCheck check =
      check_clustering(workspace.backend, clustered.rows, capacities, result.centroids.view(),
                       result.prices, static_cast<int>(result.cost_scale_log2), row_label);
  result.duality_gap = check.duality_gap;
  result.inertia_unconstrained = check.inertia_unconstrained;
}

LayerResult result_of_labels(const SplitTask& task, SplitWorkspace& workspace,
                             const std::string& method, std::span<const std::int32_t> label) {
  require(label.size() == static_cast<std::size_t>(task.layer.num_neurons),
          "a label for every neuron");
  std::vector<std::int32_t> shared;
  std::vector<std::int32_t> row_label;
  for (std::size_t i = 0; i < label.size(); ++i) {
    if (label[i] == kSharedLabel)
      shared.push_back(static_cast<std::int32_t>(i));
    else
      row_label.push_back(label[i]);
  }
  const ClusteredRows clustered = prepare_rows_besides(task, shared, workspace);
  LayerResult result = begin_result(task, clustered, row_label);
  result.method = method;
  describe_labels(result, task, workspace, clustered, row_label);
  return result;
}

}  // namespace moefy
