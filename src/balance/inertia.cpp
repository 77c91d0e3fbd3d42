#include "inertia.hpp"

#include <algorithm>
#include <cmath>

namespace moefy {

Matrix<float> means_of(const SumsView& sums) {
  Matrix<float> means(sums.sum.rows, sums.sum.cols);
  for (std::size_t j = 0; j < means.rows(); ++j) {
    const double share = mean_share(sums.scale_log2, std::max<std::int64_t>(sums.count[j], 1));
    for (std::size_t l = 0; l < means.cols(); ++l) {
      means.row(j)[l] = static_cast<float>(static_cast<double>(sums.sum.row(j)[l]) * share);
    }
  }
  return means;
}

double inertia_of_sums(Backend& backend, const Points& points, const SumsView& sums,
                       MatrixView<const float> centroids, std::span<const std::int32_t> label) {
  constexpr double kCancelled = 1e-3;
  const double unit = std::ldexp(1.0, -sums.scale_log2);
  double inertia = points.sum_squared_norm;
  for (std::size_t j = 0; j < centroids.rows; ++j) {
    const auto count = static_cast<double>(sums.count[j]);
    const auto centroid = centroids.row(j);
    const auto sum = sums.sum.row(j);
    double change = 0;
    for (std::size_t l = 0; l < centroid.size(); ++l) {
      const auto c = static_cast<double>(centroid[l]);
      change += c * (count * c - 2 * unit * static_cast<double>(sum[l]));
    }
    inertia += change;
  }
  if (inertia > kCancelled * points.sum_squared_norm) return inertia;
  return backend.inertia(points, centroids, label);
}

double random_inertia(const Points& points, const SumsView& sums, std::size_t num_sites) {
  const std::size_t n = points.rows.rows;
  if (n <= num_sites) return 0;
  const double unit = std::ldexp(1.0, -sums.scale_log2);
  double squared_sum = 0;
  for (std::size_t l = 0; l < sums.sum.cols; ++l) {
    std::int64_t total = 0;
    for (std::size_t j = 0; j < sums.sum.rows; ++j) total += sums.sum.row(j)[l];
    const double value = unit * static_cast<double>(total);
    squared_sum += value * value;
  }
  const double scatter = points.sum_squared_norm - squared_sum / static_cast<double>(n);
  return std::max(scatter, 0.0) * static_cast<double>(n - num_sites) / static_cast<double>(n - 1);
}

}  // namespace moefy
