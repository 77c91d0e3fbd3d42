#include "moefy/router/centroid_router.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// Eight partial sums, so that an addition does not wait for the one before it.
template <class T>
double norm_of(std::span<const T> row) {
  double sum[8] = {};
  std::size_t j = 0;
  for (; j + 8 <= row.size(); j += 8)
    for (std::size_t l = 0; l < 8; ++l)
      sum[l] += static_cast<double>(row[j + l]) * static_cast<double>(row[j + l]);
  for (; j < row.size(); ++j) sum[0] += static_cast<double>(row[j]) * static_cast<double>(row[j]);
  return std::sqrt(((sum[0] + sum[1]) + (sum[2] + sum[3])) +
                   ((sum[4] + sum[5]) + (sum[6] + sum[7])));
}

/// Cancellation of `count` unit rows leaves rounding noise of about this length, not a direction.
double cancellation_noise(std::int64_t count) { return 1e-9 * static_cast<double>(count); }

/// The router whose rows are the directions of `sum` [num_experts, hidden_size], each of `count`
/// unit rows.
RouterWeights router_of_sums(const Matrix<double>& sum, std::span<const std::int64_t> count,
                             std::vector<std::int64_t>* zero_experts) {
  const std::size_t num_experts = sum.rows();
  RouterWeights router;
  router.kind = "centroid";
  router.weight.resize(num_experts, sum.cols());
  double squares = 0;
  for (std::size_t e = 0; e < num_experts; ++e) {
    const std::span<const double> mean = sum.row(e);
    const double norm = norm_of(mean);
    const bool zero = norm <= cancellation_noise(count[e]);
    if (zero && zero_experts) zero_experts->push_back(static_cast<std::int64_t>(e));
    const std::span<float> out = router.weight.row(e);
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = zero ? 0.0f : static_cast<float>(mean[j] / norm);
    const double length = norm_of(std::span<const float>(out));
    squares += length * length;
  }
  router.logit_std =
      std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, num_experts)));
  return router;
}

/// Adds the unit row; nothing for a zero row.
void add_unit_row(std::span<const float> row, std::span<double> sum) {
  const double scale = unit_factor(squared_norm_of(row));
  for (std::size_t j = 0; j < row.size(); ++j) sum[j] += scale * row[j];
}

void add_unit_rows(MatrixView<const float> rows, std::span<const std::int32_t> members,
                   std::span<double> sum) {
  for (const std::int32_t neuron : members)
    add_unit_row(rows.row(static_cast<std::size_t>(neuron)), sum);
}

/// `add` adds the unit rows of a list's members to a sum [hidden_size].
template <class Add>
RouterWeights router_of_lists(const NeuronLists& lists, std::size_t hidden_size, const Add& add) {
  Matrix<double> sum(lists.num_experts(), hidden_size);
  std::ranges::fill(sum.values(), 0.0);
  std::vector<std::int64_t> count;
  for (std::size_t e = 0; e < lists.num_experts(); ++e) {
    const std::span<const std::int32_t> members = lists.expert_members(e);
    count.push_back(static_cast<std::int64_t>(members.size()));
    add(members, sum.row(e));
  }
  return router_of_sums(sum, count, nullptr);
}

}  // namespace

RouterWeights fit_centroid_router(MatrixView<const float> rows, std::span<const std::int32_t> label,
                                  std::size_t num_experts,
                                  std::vector<std::int64_t>* zero_experts) {
  require(rows.rows == label.size(), "router: rows and labels disagree");
  Matrix<double> sum(num_experts, rows.cols);
  std::fill(sum.values().begin(), sum.values().end(), 0.0);
  std::vector<std::int64_t> count(num_experts, 0);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    if (label[i] < 0) continue;
    const auto expert = static_cast<std::size_t>(label[i]);
    require(expert < num_experts, "router: label out of range");
    ++count[expert];
    add_unit_row(rows.row(i), sum.row(expert));
  }
  return router_of_sums(sum, count, zero_experts);
}

RouterWeights fit_centroid_router(RowMatrix& rows, std::span<const std::int32_t> label,
                                  std::size_t num_experts) {
  require(rows.view().rows == label.size(), "router: rows and labels disagree");
  std::vector<std::int64_t> count(num_experts, 0);
  for (const std::int32_t expert : label)
    if (expert >= 0) ++count.at(static_cast<std::size_t>(expert));
  Matrix<double> sum(num_experts, rows.view().cols);
  std::ranges::fill(sum.values(), 0.0);
  rows.add_unit_rows(label, sum);
  return router_of_sums(sum, count, nullptr);
}

RouterWeights fit_centroid_router(RowMatrix& rows, const NeuronLists& lists) {
  require(rows.view().rows == lists.num_neurons(), "router: rows and lists disagree");
  std::vector<std::int32_t> label(lists.num_neurons());
  Matrix<double> one(1, rows.view().cols);
  const auto add = [&](std::span<const std::int32_t> members, std::span<double> sum) {
    std::ranges::fill(label, -1);
    for (const std::int32_t neuron : members) label[static_cast<std::size_t>(neuron)] = 0;
    std::ranges::fill(one.values(), 0.0);
    rows.add_unit_rows(label, one);
    std::ranges::copy(one.row(0), sum.begin());
  };
  return router_of_lists(lists, rows.view().cols, add);
}

RouterWeights fit_centroid_router(MatrixView<const float> rows, const NeuronLists& lists) {
  require(rows.rows == lists.num_neurons(), "router: rows and lists disagree");
  return router_of_lists(lists, rows.cols,
                         [&](std::span<const std::int32_t> members, std::span<double> sum) {
                           add_unit_rows(rows, members, sum);
                         });
}

RouterWeights fit_euclidean_centroids(MatrixView<const float> rows, const NeuronLists& lists) {
  require(rows.rows == lists.num_neurons(), "router: rows and lists disagree");
  RouterWeights router;
  router.kind = kEuclideanCentroid;
  router.weight.resize(lists.num_experts(), rows.cols);
  std::vector<double> sum(rows.cols);
  for (std::size_t e = 0; e < lists.num_experts(); ++e) {
    const std::span<const std::int32_t> members = lists.expert_members(e);
    std::ranges::fill(sum, 0.0);
    add_unit_rows(rows, members, sum);
    const auto count = static_cast<double>(std::max<std::size_t>(1, members.size()));
    std::ranges::transform(sum, router.weight.row(e).begin(),
                           [&](double value) { return static_cast<float>(value / count); });
  }
  return router;
}

}  // namespace moefy
