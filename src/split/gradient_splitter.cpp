#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/core/error.hpp"
#include "recorded_splitter.hpp"

namespace moefy {

namespace {

/// Brings the scores of different text clusters to one scale, row by row [clusters, num_neurons].
void normalize_scores(const std::string& how, Matrix<double>& scores) {
  for (std::size_t c = 0; c < scores.rows(); ++c) {
    const std::span<double> row = scores.row(c);
    const auto count = static_cast<double>(row.size());
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    if (how == "sum") {
      if (sum != 0)
        for (double& value : row) value /= sum;
    } else if (how == "zscore") {
      double squares = 0;
      for (const double value : row) squares += (value - sum / count) * (value - sum / count);
      const double deviation = std::sqrt(squares / count);
      for (double& value : row) value = deviation > 0 ? (value - sum / count) / deviation : 0;
    } else if (how == "rank") {
      std::vector<std::size_t> order(row.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::ranges::stable_sort(order,
                               [&](std::size_t a, std::size_t b) { return row[a] < row[b]; });
      std::vector<double> rank(row.size());
      for (std::size_t i = 0; i < order.size(); ++i)
        rank[order[i]] = static_cast<double>(i) / count;
      std::ranges::copy(rank, row.begin());
    }
  }
}

/// Neurons that many experts would take among their first, found by counting (LLaMA-MoE, EMNLP
/// 2024, residual experts of "Sharing-Inter"): in each round those wanted most often, largest
/// summed score first, lowest id on ties, until there are `wanted`. An expert wants its `width`
/// best.
std::vector<std::int32_t> wanted_by_most(const Matrix<double>& scores, std::size_t width,
                                         std::size_t wanted) {
  std::vector<std::vector<std::int32_t>> order(scores.rows());
  std::vector<double> sum(scores.cols(), 0.0);
  for (std::size_t e = 0; e < scores.rows(); ++e) {
    const std::span<const double> row = scores.row(e);
    order[e].resize(row.size());
    std::iota(order[e].begin(), order[e].end(), 0);
    std::ranges::stable_sort(order[e], [&](std::int32_t a, std::int32_t b) {
      return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
    });
    for (std::size_t i = 0; i < row.size(); ++i) sum[i] += row[i];
  }
  std::vector<std::int32_t> chosen;
  while (chosen.size() < wanted) {
    std::vector<std::size_t> count(scores.cols(), 0);
    for (const std::vector<std::int32_t>& list : order)
      for (std::size_t i = 0; i < std::min(width, list.size()); ++i)
        ++count[static_cast<std::size_t>(list[i])];
    const std::size_t most = *std::ranges::max_element(count);
    std::vector<std::int32_t> candidates;
    for (std::size_t i = 0; i < count.size(); ++i)
      if (count[i] == most) candidates.push_back(static_cast<std::int32_t>(i));
    std::ranges::stable_sort(candidates, [&](std::int32_t a, std::int32_t b) {
      return sum[static_cast<std::size_t>(a)] > sum[static_cast<std::size_t>(b)];
    });
    candidates.resize(std::min(candidates.size(), wanted - chosen.size()));
    chosen.insert(chosen.end(), candidates.begin(), candidates.end());
    for (std::vector<std::int32_t>& list : order)
      std::erase_if(list, [&](std::int32_t neuron) {
        return std::ranges::find(candidates, neuron) != candidates.end();
      });
  }
  std::ranges::sort(chosen);
  return chosen;
}

/// One pass over all pairs, best score first (higher expert, then lower neuron on ties): a pair is
/// taken if neuron and expert are still free. The way of the LLaMA-MoE program.
std::vector<std::int32_t> assign_greedily(const Matrix<double>& scores,
                                          const Capacities& capacities) {
  const std::size_t experts = scores.rows();
  const std::size_t neurons = scores.cols();
  std::vector<std::size_t> order(experts * neurons);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    const double left = scores.values()[a];
    const double right = scores.values()[b];
    if (left != right) return left > right;
    return a / neurons != b / neurons ? a / neurons > b / neurons : a % neurons < b % neurons;
  });
  std::size_t larger = neurons;  // neurons beyond the lower bounds
  for (const SizeBounds& bound : capacities.bounds()) larger -= std::min(larger, bound.lower);
  std::vector<std::size_t> size(experts, 0);
  std::vector<std::int32_t> label(neurons, -1);
  for (const std::size_t pair : order) {
    const std::size_t e = pair / neurons;
    std::int32_t& chosen = label[pair % neurons];
    const SizeBounds& bound = capacities.bounds()[e];
    if (chosen >= 0 || size[e] == bound.upper || (size[e] >= bound.lower && larger == 0)) continue;
    if (size[e] >= bound.lower) --larger;
    ++size[e];
    chosen = static_cast<std::int32_t>(e);
  }
  return label;
}

/// The assignment of the largest total score; the lexicographically smallest of several.
std::vector<std::int32_t> assign_exactly(const Matrix<double>& scores,
                                         const Capacities& capacities) {
  Matrix<double> cost(scores.cols(), scores.rows());
  for (std::size_t i = 0; i < cost.rows(); ++i)
    for (std::size_t e = 0; e < cost.cols(); ++e) cost.row(i)[e] = -scores.row(e)[i];
  return balanced_assign(integer_costs(cost).view(), capacities).label;
}

double total_score(const Matrix<double>& scores, std::span<const std::int32_t> label) {
  double total = 0;
  for (std::size_t i = 0; i < label.size(); ++i)
    total += scores.row(static_cast<std::size_t>(label[i]))[i];
  return total;
}

/// Experts of the neurons that matter most for one cluster of texts each (LLaMA-MoE, EMNLP 2024,
/// independent split by importance): expert e and text cluster e belong together.
class GradientSplitter : public RecordedSplitter {
 public:
  std::string name() const override { return "gradient"; }
  RecordingNeed needs() const override { return RecordingNeed::importance; }

 protected:
  std::vector<std::int32_t> labels(const SplitTask& task, SplitWorkspace& /*workspace*/,
                                   Metrics& metrics) const override {
    require(task.importance != nullptr, "importance vectors are at hand");
    const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
    const Matrix<double> scores = scores_of(task);
    const std::size_t wanted = shared_neurons(task.config, neurons);
    const std::size_t width =
        neurons / static_cast<std::size_t>(task.config.experts + task.config.shared);
    const std::vector<std::int32_t> routed =
        neurons_besides(wanted_by_most(scores, width, wanted), neurons);
    Matrix<double> left(scores.rows(), routed.size());
    for (std::size_t e = 0; e < left.rows(); ++e)
      for (std::size_t i = 0; i < routed.size(); ++i)
        left.row(e)[i] = scores.row(e)[static_cast<std::size_t>(routed[i])];
    const Capacities capacities = routed_capacities(task.config, neurons);
    const std::vector<std::int32_t> label = task.config.assign == "greedy"
                                                ? assign_greedily(left, capacities)
                                                : assign_exactly(left, capacities);
    metrics.emplace_back("importance_kept", total_score(left, label));
    return labels_of_all(routed, label, neurons);
  }

 private:
  /// The first E clusters' scores, larger ones better [experts, num_neurons].
  static Matrix<double> scores_of(const SplitTask& task) {
    const Matrix<double>& all = *task.importance;
    const auto experts = static_cast<std::size_t>(task.config.experts);
    if (all.rows() < experts)
      throw UsageError(
          fmt::format("--method gradient: {} experts need as many text clusters, the recordings "
                      "have {}; record "
                      "with --clusters {}",
                      experts, all.rows(), experts));
    Matrix<double> scores(experts, all.cols());
    std::copy_n(all.values().begin(), scores.values().size(), scores.values().begin());
    normalize_scores(task.config.score_norm, scores);
    if (task.config.criterion == "min")
      for (double& value : scores.values()) value = -value;
    return scores;
  }
};

}  // namespace

std::unique_ptr<Splitter> make_gradient_splitter() { return std::make_unique<GradientSplitter>(); }

}  // namespace moefy
