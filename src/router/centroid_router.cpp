#include "moefy/router/centroid_router.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

double squared_norm(std::span<const float> row) {
  double sum = 0;
  for (const float value : row) sum += static_cast<double>(value) * value;
  return sum;
}

/// Adds the unit vector of `row` (nothing for a zero row).
void add_unit(std::span<const float> row, std::span<double> sum) {
  const double norm = std::sqrt(squared_norm(row));
  if (norm == 0) return;
  const double scale = 1 / norm;
  for (std::size_t j = 0; j < row.size(); ++j) sum[j] += scale * row[j];
}

}  // namespace

RouterWeights fit_centroid_router(MatrixView<const float> rows, const Partition& partition,
                                  std::vector<std::int64_t>* zero_experts) {
  require(rows.rows == partition.num_neurons(), "router: rows and partition disagree");
  RouterWeights router;
  router.kind = "centroid";
  router.weight.resize(partition.num_experts(), rows.cols);
  std::vector<double> sum(rows.cols);
  double total = 0;
  for (std::size_t e = 0; e < partition.num_experts(); ++e) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (const std::int32_t neuron : partition.expert_members(e))
      add_unit(rows.row(static_cast<std::size_t>(neuron)), sum);
    double norm = 0;
    for (const double value : sum) norm += value * value;
    norm = std::sqrt(norm);
    // Cancellation leaves rounding noise, not a direction.
    const double noise = 1e-9 * static_cast<double>(partition.expert_members(e).size());
    const bool zero = norm <= noise;
    if (zero && zero_experts) zero_experts->push_back(static_cast<std::int64_t>(e));
    const std::span<float> out = router.weight.row(e);
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = zero ? 0.0f : static_cast<float>(sum[j] / norm);
    total += squared_norm(out);
  }
  router.logit_std =
      std::sqrt(total / static_cast<double>(std::max<std::size_t>(1, partition.num_experts())));
  return router;
}

}  // namespace moefy
