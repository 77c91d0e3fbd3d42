#include "recorded_splitter.hpp"

#include <algorithm>
#include <cmath>

#include "clustered_rows.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

LayerResult RecordedSplitter::split(const SplitTask& task, SplitWorkspace& workspace) const {
  require(task.tokens != nullptr, "a method that needs recordings got none");
  Metrics metrics;
  const std::vector<std::int32_t> label = labels(task, workspace, metrics);
  LayerResult result = result_of_labels(task, workspace, name(), label);
  attach_router(result, task, workspace);
  std::ranges::sort(metrics);
  result.metrics = std::move(metrics);
  return result;
}

std::vector<std::int32_t> neurons_besides(std::span<const std::int32_t> shared,
                                          std::size_t num_neurons) {
  std::vector<std::int32_t> routed;
  auto next = shared.begin();
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(num_neurons); ++i) {
    if (next != shared.end() && *next == i)
      ++next;
    else
      routed.push_back(i);
  }
  return routed;
}

std::vector<std::int32_t> labels_of_all(std::span<const std::int32_t> routed,
                                        std::span<const std::int32_t> routed_label,
                                        std::size_t num_neurons) {
  std::vector<std::int32_t> label(num_neurons, kSharedLabel);
  for (std::size_t i = 0; i < routed.size(); ++i)
    label[static_cast<std::size_t>(routed[i])] = routed_label[i];
  return label;
}

std::vector<std::int32_t> cluster_gate_rows(const SplitTask& task, SplitWorkspace& workspace,
                                            std::span<const std::int32_t> routed) {
  const FfnLayer& layer = task.tokens->layer();
  const Matrix<float>& source = layer.gate.rows() > 0 ? layer.gate : layer.up;
  RowMatrix& rows = *workspace.rows;
  rows.resize(source.rows(), source.cols());
  rows.fill_columns(0, source.cols(), [&](MatrixView<float> out) {
    std::ranges::copy(source.values(), out.values().begin());
  });
  rows.keep(routed, true);
  return workspace.kmeans
      .run(rows.view(), routed_capacities(task.config, layer.num_neurons()), task.config.kmeans,
           static_cast<std::uint64_t>(task.layer.index), nullptr, task.stop)
      .label;
}

Matrix<std::int64_t> integer_costs(const Matrix<double>& costs) {
  constexpr int kBits = 45;
  std::vector<double> least(costs.rows());
  double largest = 0;
  for (std::size_t i = 0; i < costs.rows(); ++i) {
    for (const double cost : costs.row(i))
      if (!std::isfinite(cost)) throw InputError("activations overflow: a cost is not finite");
    least[i] = *std::ranges::min_element(costs.row(i));
    largest = std::max(largest, *std::ranges::max_element(costs.row(i)) - least[i]);
  }
  const double scale = largest > 0 ? std::ldexp(1.0, kBits - 1 - std::ilogb(largest)) : 1.0;
  Matrix<std::int64_t> result(costs.rows(), costs.cols());
  for (std::size_t i = 0; i < costs.rows(); ++i)
    for (std::size_t e = 0; e < costs.cols(); ++e)
      result.row(i)[e] = std::llround((costs.row(i)[e] - least[i]) * scale);
  return result;
}

}  // namespace moefy
