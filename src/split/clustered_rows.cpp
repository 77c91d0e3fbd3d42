#include "clustered_rows.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/core/error.hpp"
#include "moefy/router/centroid_router.hpp"
#include "neuron_energy.hpp"

namespace moefy {

namespace {

FfnRole role_of(const std::string& weights) {
  if (weights == "gate") return FfnRole::gate;
  if (weights == "up") return FfnRole::up;
  require(weights == "down", "unknown --weights");
  return FfnRole::down;
}

std::vector<FfnRole> clustered_roles(const std::string& weights) {
  if (weights == "concat") return {FfnRole::gate, FfnRole::up, FfnRole::down};
  return {role_of(weights)};
}

std::size_t neurons_of(const LayerInfo& layer) {
  return static_cast<std::size_t>(layer.num_neurons);
}

/// `to_keep`: the rows that will be left, where they are known.
void load_clustered(const SplitTask& task, std::span<const std::int32_t> to_keep,
                    SplitWorkspace& workspace) {
  const std::size_t n = neurons_of(task.layer);
  const auto d = static_cast<std::size_t>(task.layer.hidden_size);
  const std::vector<FfnRole> roles = clustered_roles(resolved_weights(task.config, task.layer));
  workspace.rows->resize(n, d * roles.size(), to_keep);
  for (std::size_t r = 0; r < roles.size(); ++r) {
    workspace.rows->fill_columns(r * d, d,
                                 [&](const RowsTarget& out) { task.source(roles[r], out); });
  }
}

std::vector<double> lengths(RowMatrix& rows) {
  std::vector<double> norm = rows.squared_norms();
  for (double& value : norm) value = std::sqrt(value);
  return norm;
}

/// Largest norm or energy first; the order of ids where they are equal.
Partition with_requested_order(Partition partition, const SplitTask& task,
                               std::span<const double> norm) {
  if (task.config.order == "id") return partition;
  std::vector<double> rank(norm.begin(), norm.end());
  if (task.config.order == "activity") rank = neuron_energies(*task.tokens);
  for (double& value : rank) value = -value;
  return partition.with_member_order(rank);
}

}  // namespace

std::string resolved_weights(const SplitConfig& config, const LayerInfo& layer) {
  if (config.weights != "auto") return config.weights;
  return layer.gated() ? "gate" : "up";
}

FfnRole router_role(const LayerInfo& layer) { return layer.gated() ? FfnRole::gate : FfnRole::up; }

std::vector<FfnRole> roles_read(const SplitConfig& config, const LayerInfo& layer) {
  if (config.recorded) return roles_of_neurons(layer);
  std::vector<FfnRole> roles;
  if (config.shared > 0) {
    for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down})
      if (layer.find(role)) roles.push_back(role);
  }
  const std::vector<FfnRole> clustered = clustered_roles(resolved_weights(config, layer));
  roles.insert(roles.end(), clustered.begin(), clustered.end());
  if (clustered.size() > 1 || clustered[0] != router_role(layer))
    roles.push_back(router_role(layer));
  return roles;
}

std::int64_t clustered_columns(const SplitConfig& config, const LayerInfo& layer) {
  const auto parts = clustered_roles(resolved_weights(config, layer)).size();
  return static_cast<std::int64_t>(parts) * layer.hidden_size;
}

ClusteredRows prepare_rows(const SplitTask& task, SplitWorkspace& workspace) {
  return prepare_rows_besides(task, pick_shared(task, workspace), workspace);
}

ClusteredRows prepare_rows_besides(const SplitTask& task, std::span<const std::int32_t> shared,
                                   SplitWorkspace& workspace) {
  const std::size_t n = neurons_of(task.layer);
  ClusteredRows clustered;
  clustered.neuron.reserve(n - shared.size());
  auto next_shared = shared.begin();
  for (std::size_t i = 0; i < n; ++i) {
    if (next_shared != shared.end() && *next_shared == static_cast<std::int32_t>(i)) {
      ++next_shared;
      continue;
    }
    clustered.neuron.push_back(static_cast<std::int32_t>(i));
  }
  load_clustered(task, clustered.neuron, workspace);
  if (task.config.order == "norm") clustered.norm = lengths(*workspace.rows);
  workspace.rows->keep(clustered.neuron, task.config.normalize == "l2");
  clustered.rows = workspace.rows->view();
  return clustered;
}

LayerResult identify_result(const SplitTask& task) {
  LayerResult result;
  result.layer_index = task.layer.index;
  result.name = task.layer.name;
  result.hidden_size = task.layer.hidden_size;
  result.weights = resolved_weights(task.config, task.layer);
  result.activation = task.layer.activation;
  result.normalize = task.config.normalize;
  return result;
}

LayerResult begin_result(const SplitTask& task, const ClusteredRows& clustered,
                         std::span<const std::int32_t> row_label) {
  const std::size_t n = neurons_of(task.layer);
  std::vector<std::int32_t> label(n, kSharedLabel);
  for (std::size_t i = 0; i < row_label.size(); ++i)
    label[static_cast<std::size_t>(clustered.neuron[i])] = row_label[i];
  const Capacities capacities = routed_capacities(task.config, n);
  LayerResult result = identify_result(task);
  result.partition = with_requested_order(
      Partition::from_labels(std::move(label), static_cast<std::size_t>(task.config.experts),
                             static_cast<std::size_t>(task.config.shared), capacities.bounds()),
      task, clustered.norm);
  return result;
}

bool are_router_rows(const SplitTask& task) {
  const std::string weights = resolved_weights(task.config, task.layer);
  return weights != "concat" && role_of(weights) == router_role(task.layer);
}

void load_router_rows(const SplitTask& task, SplitWorkspace& workspace) {
  const auto width = static_cast<std::size_t>(task.layer.hidden_size);
  workspace.rows->resize(neurons_of(task.layer), width);
  workspace.rows->fill_columns(
      0, width, [&](const RowsTarget& out) { task.source(router_role(task.layer), out); });
}

void attach_router(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace) {
  load_router_rows(task, workspace);
  result.router = fit_centroid_router(*workspace.rows, result.partition.labels(),
                                      result.partition.num_experts());
}

void attach_router(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace,
                   std::span<const std::int32_t> row_label) {
  if (!are_router_rows(task)) return attach_router(result, task, workspace);
  result.router = fit_centroid_router(*workspace.rows, row_label, result.partition.num_experts());
}

LabelledRows rows_of_result(const LayerInfo& layer, const LayerResult& result,
                            const RowSource& source, SplitWorkspace& workspace) {
  require(result.lists().num_neurons() == neurons_of(layer), "a result of another layer");
  SplitConfig config;
  config.weights = result.weights;
  config.normalize = result.normalize;
  load_clustered({layer, config, source, nullptr, {}}, {}, workspace);
  LabelledRows labelled;
  std::vector<std::int32_t> neuron;
  if (result.sharing) {
    neuron.resize(neurons_of(layer));
    std::iota(neuron.begin(), neuron.end(), 0);
  }
  const auto labels = result.partition.labels();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == kSharedLabel) continue;
    neuron.push_back(static_cast<std::int32_t>(i));
    labelled.label.push_back(labels[i]);
  }
  workspace.rows->keep(neuron, config.normalize == "l2");
  labelled.rows = workspace.rows->view();
  return labelled;
}

}  // namespace moefy
