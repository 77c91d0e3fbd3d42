#include "fixed_point.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "moefy/core/error.hpp"

namespace moefy {

int cost_scale_log2(double largest_squared_norm) {
  if (largest_squared_norm == 0) return 0;
  const int exponent = static_cast<int>(std::ceil(std::log2(4 * largest_squared_norm)));
  // Both the squared norms and 2^s are fp32 numbers in the kernels.
  if (exponent > 120 || exponent < -90) {
    throw InputError(fmt::format(
        "the largest row has norm {:.3g}; squared distances of that size do not fit fp32. Scale "
        "the rows, or normalize them",
        std::sqrt(largest_squared_norm)));
  }
  return 28 - exponent;
}

int sum_scale_log2(float largest_element) {
  if (largest_element == 0) return 0;
  return 40 - static_cast<int>(std::ceil(std::log2(static_cast<double>(largest_element))));
}

std::int32_t price_from_real(double price, int cost_scale_log2) {
  const double limit = kMaxCost;
  const double quanta = std::rint(std::ldexp(price, cost_scale_log2));
  if (std::isnan(quanta)) throw InputError("start: a price is not a number");
  return static_cast<std::int32_t>(std::clamp(quanta, -limit, limit));
}

double relative_gap(const Certificate& certificate) {
  return static_cast<double>(certificate.gap) /
         std::max(static_cast<double>(certificate.cost), 1.0);
}

double largest_squared_norm(const Matrix<float>& centroids, std::span<const float> common_mean) {
  double largest = 0;
  for (std::size_t j = 0; j < centroids.rows(); ++j) {
    double norm = 0;
    for (std::size_t l = 0; l < centroids.cols(); ++l) {
      const double value = static_cast<double>(centroids.row(j)[l]) -
                           (common_mean.empty() ? 0.0 : static_cast<double>(common_mean[l]));
      norm += value * value;
    }
    largest = std::max(largest, norm);
  }
  return largest;
}

}  // namespace moefy
