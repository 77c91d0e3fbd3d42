#include "clustered_rows.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
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

std::vector<double> row_norms(MatrixView<const float> rows, ThreadPool& threads) {
  std::vector<double> norms(rows.rows);
  threads.for_each((rows.rows + 255) / 256, [&](std::size_t block) {
    for (std::size_t i = block * 256; i < std::min(rows.rows, block * 256 + 256); ++i) {
      double sum[4] = {};
      const float* row = rows.data + i * rows.cols;
      std::size_t j = 0;
      for (; j + 4 <= rows.cols; j += 4)
        for (std::size_t l = 0; l < 4; ++l)
          sum[l] += static_cast<double>(row[j + l]) * static_cast<double>(row[j + l]);
      for (; j < rows.cols; ++j)
        sum[0] += static_cast<double>(row[j]) * static_cast<double>(row[j]);
      norms[i] = std::sqrt((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
  });
  return norms;
}

std::int64_t count_zero_rows(MatrixView<const float> rows) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < rows.rows; ++i)
    if (std::ranges::all_of(rows.row(i), [](float value) { return value == 0; })) ++count;
  return count;
}

void load_clustered(const SplitTask& task, SplitWorkspace& workspace) {
  const std::size_t n = neurons_of(task.layer);
  const auto d = static_cast<std::size_t>(task.layer.hidden_size);
  const std::vector<FfnRole> roles = clustered_roles(resolved_weights(task.config, task.layer));
  workspace.rows.resize(n, d * roles.size());
  if (roles.size() == 1) {
    task.source(roles[0], workspace.rows.view());
    return;
  }
  Matrix<float> part(n, d);
  for (std::size_t r = 0; r < roles.size(); ++r) {
    task.source(roles[r], part.view());
    for (std::size_t i = 0; i < n; ++i)
      std::copy_n(part.row(i).data(), d, workspace.rows.row(i).data() + r * d);
  }
}

/// Moves the rows of `neuron` (ascending) together at the top; `unit` scales them by their norm.
MatrixView<float> compact_rows(Matrix<float>& rows, std::span<const std::int32_t> neuron,
                               std::span<const double> norm, bool unit, ThreadPool& threads) {
  if (neuron.size() < rows.rows()) {
    for (std::size_t i = 0; i < neuron.size(); ++i) {
      const auto from = static_cast<std::size_t>(neuron[i]);
      if (from != i) std::copy_n(rows.row(from).data(), rows.cols(), rows.row(i).data());
    }
  }
  if (unit) {
    threads.for_each((neuron.size() + 255) / 256, [&](std::size_t block) {
      for (std::size_t i = block * 256; i < std::min(neuron.size(), block * 256 + 256); ++i) {
        const double length = norm[static_cast<std::size_t>(neuron[i])];
        if (length == 0) continue;
        const auto scale = static_cast<float>(1 / length);
        for (float& value : rows.row(i)) value *= scale;
      }
    });
  }
  return {rows.values().data(), neuron.size(), rows.cols()};
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
  load_clustered(task, workspace);

  ClusteredRows clustered;
  ThreadPool& threads = workspace.backend.threads();
  const bool unit = task.config.normalize == "l2";
  if (unit || task.config.order == "norm")
    clustered.norm = row_norms(workspace.rows.view(), threads);
  clustered.zero_rows = count_zero_rows(workspace.rows.view());
  clustered.neuron.reserve(n - shared.size());
  auto next_shared = shared.begin();
  for (std::size_t i = 0; i < n; ++i) {
    if (next_shared != shared.end() && *next_shared == static_cast<std::int32_t>(i)) {
      ++next_shared;
      continue;
    }
    clustered.neuron.push_back(static_cast<std::int32_t>(i));
  }
  clustered.rows = compact_rows(workspace.rows, clustered.neuron, clustered.norm, unit, threads);
  return clustered;
}

LayerResult begin_result(const SplitTask& task, const ClusteredRows& clustered,
                         std::span<const std::int32_t> row_label) {
  const std::size_t n = neurons_of(task.layer);
  std::vector<std::int32_t> label(n, kSharedLabel);
  for (std::size_t i = 0; i < row_label.size(); ++i)
    label[static_cast<std::size_t>(clustered.neuron[i])] = row_label[i];
  const Capacities capacities = routed_capacities(task.config, n);
  LayerResult result;
  result.layer_index = task.layer.index;
  result.name = task.layer.name;
  result.hidden_size = task.layer.hidden_size;
  result.weights = resolved_weights(task.config, task.layer);
  result.activation = task.layer.activation;
  result.normalize = task.config.normalize;
  result.partition = with_requested_order(
      Partition::from_labels(std::move(label), static_cast<std::size_t>(task.config.experts),
                             static_cast<std::size_t>(task.config.shared), capacities.bounds()),
      task, clustered.norm);
  result.zero_rows = clustered.zero_rows;
  return result;
}

void attach_router(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace) {
  workspace.rows.resize(neurons_of(task.layer), static_cast<std::size_t>(task.layer.hidden_size));
  task.source(router_role(task.layer), workspace.rows.view());
  result.router = fit_centroid_router(workspace.rows.view(), result.partition.labels(),
                                      result.partition.num_experts());
}

void attach_router(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace,
                   const ClusteredRows& clustered, std::span<const std::int32_t> row_label) {
  const std::string weights = resolved_weights(task.config, task.layer);
  if (weights == "concat" || role_of(weights) != router_role(task.layer))
    return attach_router(result, task, workspace);
  result.router = fit_centroid_router(clustered.rows, row_label, result.partition.num_experts());
}

std::vector<std::int32_t> random_labels(const SplitTask& task, std::size_t num_rows) {
  const auto experts = static_cast<std::size_t>(task.config.experts);
  std::vector<std::int32_t> label(num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) label[i] = static_cast<std::int32_t>(i % experts);
  RandomStream stream(task.config.kmeans.seed, static_cast<std::uint64_t>(task.layer.index),
                      RandomPurpose::random_split);
  shuffle(label, stream);
  return label;
}

LabelledRows rows_of_result(const LayerInfo& layer, const LayerResult& result,
                            const RowSource& source, SplitWorkspace& workspace) {
  require(result.partition.num_neurons() == neurons_of(layer), "a result of another layer");
  SplitConfig config;
  config.weights = result.weights;
  config.normalize = result.normalize;
  load_clustered({layer, config, source, nullptr, {}}, workspace);
  ThreadPool& threads = workspace.backend.threads();
  const bool unit = config.normalize == "l2";
  std::vector<double> norm;
  if (unit) norm = row_norms(workspace.rows.view(), threads);
  LabelledRows labelled;
  std::vector<std::int32_t> neuron;
  const auto labels = result.partition.labels();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == kSharedLabel) continue;
    neuron.push_back(static_cast<std::int32_t>(i));
    labelled.label.push_back(labels[i]);
  }
  labelled.rows = compact_rows(workspace.rows, neuron, norm, unit, threads);
  return labelled;
}

}  // namespace moefy
