#include "neuron_graph.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr int kMostPasses = 10;

/// The p-th percentile of `values`, whose order changes.
double percentile(std::span<double> values, double p) {
  const double position = p / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::ranges::nth_element(values, at);
  const double low = *at;
  if (below + 1 == values.size()) return low;
  const double high = *std::min_element(at + 1, values.end());
  return low + (position - static_cast<double>(below)) * (high - low);
}

double edge_threshold(const Matrix<double>& coactivation) {
  std::vector<double> values(coactivation.values().begin(), coactivation.values().end());
  for (int p = 10; p <= 100; p += 10)
    if (const double found = percentile(values, p); found > 0) return 0.99 * found;
  throw InputError("no co-activation: no two neurons are active on the same tokens");
}

/// Weight of the edges from each vertex into each part [num_vertices, parts].
Matrix<std::int64_t> weights_into_parts(const NeuronGraph& graph,
                                        std::span<const std::int32_t> part, std::size_t parts) {
  Matrix<std::int64_t> into(graph.num_vertices(), parts);
  std::ranges::fill(into.values(), 0);
  for (std::size_t i = 0; i < graph.num_vertices(); ++i)
    for (auto at = graph.begin[i]; at < graph.begin[i + 1]; ++at) {
      const auto edge = static_cast<std::size_t>(at);
      const auto to = static_cast<std::size_t>(graph.neighbour[edge]);
      into.row(i)[static_cast<std::size_t>(part[to])] += graph.weight[edge];
    }
  return into;
}

/// Keeps for every vertex the weight of its edges into each part while vertices change places.
class Swapper {
 public:
  Swapper(const NeuronGraph& graph, std::size_t parts, std::vector<std::int32_t>& part)
      : graph_(graph),
        part_(part),
        into_(weights_into_parts(graph, part, parts)),
        direct_(graph.num_vertices(), 0) {}

  /// Whether any swap was made.
  bool pass() {
    bool swapped = false;
    for (std::size_t i = 0; i < part_.size(); ++i) swapped = swap_best(i) || swapped;
    return swapped;
  }

 private:
  bool swap_best(std::size_t i) {
    spread_edges(i, true);
    std::int64_t best_gain = 0;
    std::size_t best = 0;
    for (std::size_t j = 0; j < part_.size(); ++j) {
      if (part_[j] == part_[i]) continue;
      const std::int64_t gain = into_.row(i)[part(j)] - into_.row(i)[part(i)] +
                                into_.row(j)[part(i)] - into_.row(j)[part(j)] - 2 * direct_[j];
      if (gain > best_gain) {
        best_gain = gain;
        best = j;
      }
    }
    spread_edges(i, false);
    if (best_gain == 0) return false;
    const std::size_t from = part(i);
    const std::size_t to = part(best);
    move(i, from, to);
    move(best, to, from);
    return true;
  }

  /// direct_[j] = weight of the edge i-j, or 0 again.
  void spread_edges(std::size_t i, bool on) {
    for (auto at = graph_.begin[i]; at < graph_.begin[i + 1]; ++at) {
      const auto edge = static_cast<std::size_t>(at);
      direct_[static_cast<std::size_t>(graph_.neighbour[edge])] = on ? graph_.weight[edge] : 0;
    }
  }

  void move(std::size_t i, std::size_t from, std::size_t to) {
    part_[i] = static_cast<std::int32_t>(to);
    for (auto at = graph_.begin[i]; at < graph_.begin[i + 1]; ++at) {
      const auto edge = static_cast<std::size_t>(at);
      const std::span<std::int64_t> row =
          into_.row(static_cast<std::size_t>(graph_.neighbour[edge]));
      row[from] -= graph_.weight[edge];
      row[to] += graph_.weight[edge];
    }
  }

  std::size_t part(std::size_t i) const { return static_cast<std::size_t>(part_[i]); }

  const NeuronGraph& graph_;
  std::vector<std::int32_t>& part_;
  Matrix<std::int64_t> into_;
  std::vector<std::int64_t> direct_;
};

}  // namespace

double NeuronGraph::density() const {
  const auto n = static_cast<double>(num_vertices());
  return n > 1 ? static_cast<double>(neighbour.size()) / (n * (n - 1)) : 0;
}

NeuronGraph coactivation_graph(const Matrix<double>& coactivation) {
  const double theta = edge_threshold(coactivation);
  NeuronGraph graph;
  graph.begin.push_back(0);
  for (std::size_t i = 0; i < coactivation.rows(); ++i) {
    const std::span<const double> row = coactivation.row(i);
    for (std::size_t j = 0; j < row.size(); ++j) {
      if (i == j || row[j] < theta) continue;
      graph.neighbour.push_back(static_cast<std::int32_t>(j));
      graph.weight.push_back(static_cast<std::int64_t>(std::floor(row[j] / theta)));
    }
    graph.begin.push_back(static_cast<std::int64_t>(graph.neighbour.size()));
  }
  return graph;
}

std::int64_t edge_cut(const NeuronGraph& graph, std::span<const std::int32_t> part) {
  std::int64_t twice = 0;
  for (std::size_t i = 0; i < graph.num_vertices(); ++i)
    for (auto at = graph.begin[i]; at < graph.begin[i + 1]; ++at) {
      const auto edge = static_cast<std::size_t>(at);
      if (part[static_cast<std::size_t>(graph.neighbour[edge])] != part[i])
        twice += graph.weight[edge];
    }
  return twice / 2;
}

std::vector<std::int32_t> rebalance_parts(const NeuronGraph& graph,
                                          std::span<const std::int32_t> part,
                                          const Capacities& capacities) {
  Matrix<std::int64_t> cost = weights_into_parts(graph, part, capacities.bounds().size());
  for (std::size_t i = 0; i < cost.rows(); ++i) {
    const std::int64_t most = *std::ranges::max_element(cost.row(i));
    for (std::int64_t& value : cost.row(i)) value = most - value;
  }
  return balanced_assign(cost.view(), capacities).label;
}

void swap_improving(const NeuronGraph& graph, std::size_t parts, std::vector<std::int32_t>& part) {
  Swapper swapper(graph, parts, part);
  for (int pass = 0; pass < kMostPasses; ++pass)
    if (!swapper.pass()) return;
}

}  // namespace moefy
