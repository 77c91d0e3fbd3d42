#include "common_mean.hpp"

#include <algorithm>
#include <cmath>

#include "fixed_point.hpp"

namespace moefy {
namespace {

constexpr double kDominating = 0.9;
// A sample decides whether the exact mean is worth a pass over all rows.
constexpr double kSuspicious = 0.8;
constexpr std::size_t kSampleRows = 2048;

/// Mean of the selected rows from integer sums: the same for every order.
std::vector<double> mean_of(Backend& backend, const Points& points, RowSelection selection,
                            SiteSums& sums) {
  const std::size_t count = selection.count(points.rows.rows);
  sums.clear(1, points.rows.cols, sum_scale_log2(points.max_abs));
  const std::vector<std::int32_t> label(count, 0);
  backend.update_sums(points, selection, {}, label, sums);
  const auto sum = sums.on_host(std::vector{0}).sum.row(0);
  std::vector<double> mean(points.rows.cols);
  for (std::size_t l = 0; l < mean.size(); ++l) {
    mean[l] =
        std::ldexp(static_cast<double>(sum[l]) / static_cast<double>(count), -sums.scale_log2);
  }
  return mean;
}

double squared_norm(std::span<const double> vector) {
  double norm = 0;
  for (double value : vector) norm += value * value;
  return norm;
}

}  // namespace

std::vector<float> load_centered(Backend& backend, const RowsView& rows, bool quantize,
                                 SiteSums& sums, Points& points) {
  backend.load(points, rows, quantize);
  const double mean_norm = points.sum_squared_norm / static_cast<double>(rows.rows);
  if (mean_norm == 0) return {};
  const RowSelection sample{std::max<std::size_t>(1, rows.rows / kSampleRows)};
  if (squared_norm(mean_of(backend, points, sample, sums)) <= kSuspicious * mean_norm) return {};
  const std::vector<double> mean = mean_of(backend, points, {}, sums);
  if (squared_norm(mean) <= kDominating * mean_norm) return {};

  std::vector<float> subtracted(mean.begin(), mean.end());
  const std::int64_t zero_rows = points.zero_rows;
  backend.load_shifted(points, rows, subtracted, quantize);
  points.zero_rows = zero_rows;
  return subtracted;
}

void add_to_rows(std::span<const float> common_mean, Matrix<float>& rows) {
  if (common_mean.empty()) return;
  for (std::size_t i = 0; i < rows.rows(); ++i) {
    const auto row = rows.row(i);
    for (std::size_t l = 0; l < row.size(); ++l) row[l] += common_mean[l];
  }
}

}  // namespace moefy
