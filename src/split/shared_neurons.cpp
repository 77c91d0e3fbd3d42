#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/split/splitter.hpp"
#include "neuron_energy.hpp"

namespace moefy {

namespace {

/// The product of the norms of a neuron's rows over the layer's matrices.
std::vector<double> products_of_norms(const SplitTask& task, SplitWorkspace& workspace) {
  const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
  std::vector<double> product(neurons, 1.0);
  const auto width = static_cast<std::size_t>(task.layer.hidden_size);
  workspace.rows->resize(neurons, width);
  for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down}) {
    if (!task.layer.find(role)) continue;
    workspace.rows->fill_columns(0, width, [&](const RowsTarget& out) { task.source(role, out); });
    const std::vector<double> squares = workspace.rows->squared_norms();
    for (std::size_t i = 0; i < neurons; ++i) product[i] *= std::sqrt(squares[i]);
  }
  return product;
}

}  // namespace

std::vector<std::int32_t> pick_shared(const SplitTask& task, SplitWorkspace& workspace) {
  const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
  const std::size_t wanted = shared_neurons(task.config, neurons);
  if (wanted == 0) return {};
  const std::vector<double> score =
      task.tokens ? neuron_energies(*task.tokens) : products_of_norms(task, workspace);
  std::vector<std::int32_t> order(neurons);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return score[static_cast<std::size_t>(a)] > score[static_cast<std::size_t>(b)];
  });
  order.resize(wanted);
  std::ranges::sort(order);
  return order;
}

}  // namespace moefy
