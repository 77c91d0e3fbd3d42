#include "importance_scores.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// Neuron ids by falling score, lowest id on ties.
std::vector<std::int32_t> ranking(std::span<const double> row) {
  std::vector<std::int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
  });
  return order;
}

void divide_by_sum(std::span<double> row) {
  const double sum = std::accumulate(row.begin(), row.end(), 0.0);
  if (sum == 0) return;
  for (double& value : row) value /= sum;
}

void standardize(std::span<double> row) {
  const auto count = static_cast<double>(row.size());
  const double mean = std::accumulate(row.begin(), row.end(), 0.0) / count;
  double squares = 0;
  for (const double value : row) squares += (value - mean) * (value - mean);
  const double deviation = std::sqrt(squares / count);
  for (double& value : row) value = deviation > 0 ? (value - mean) / deviation : 0;
}

void replace_by_rank(std::span<double> row) {
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return row[a] < row[b]; });
  for (std::size_t i = 0; i < order.size(); ++i)
    row[order[i]] = static_cast<double>(i) / static_cast<double>(row.size());
}

}  // namespace

Matrix<double> importance_scores(const SplitTask& task, std::size_t clusters) {
  require(task.importance != nullptr && clusters <= task.importance->rows(),
          "importance vectors are at hand");
  Matrix<double> scores(clusters, task.importance->cols());
  std::copy_n(task.importance->values().begin(), scores.values().size(), scores.values().begin());
  for (std::size_t c = 0; c < clusters; ++c) {
    if (task.config.score_norm == "sum") divide_by_sum(scores.row(c));
    if (task.config.score_norm == "zscore") standardize(scores.row(c));
    if (task.config.score_norm == "rank") replace_by_rank(scores.row(c));
  }
  if (task.config.criterion == "min")
    for (double& value : scores.values()) value = -value;
  return scores;
}

Matrix<double> scores_of_experts(const SplitTask& task) {
  require(task.importance != nullptr, "importance vectors are at hand");
  const auto experts = static_cast<std::size_t>(task.config.experts);
  if (task.importance->rows() < experts)
    throw UsageError(
        fmt::format("--method gradient: {} experts need as many text clusters, the recordings have "
                    "{}; record with --clusters {}",
                    experts, task.importance->rows(), experts));
  return importance_scores(task, experts);
}

std::vector<std::vector<std::int32_t>> neurons_by_score(const Matrix<double>& scores) {
  std::vector<std::vector<std::int32_t>> order;
  for (std::size_t e = 0; e < scores.rows(); ++e) order.push_back(ranking(scores.row(e)));
  return order;
}

std::vector<double> summed_scores(const Matrix<double>& scores) {
  std::vector<double> sum(scores.cols(), 0.0);
  for (std::size_t e = 0; e < scores.rows(); ++e)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += scores.row(e)[i];
  return sum;
}

}  // namespace moefy
