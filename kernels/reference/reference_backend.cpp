#include "reference/reference_backend.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "moefy/core/error.hpp"
#include "reference/assignment_kernels.hpp"

namespace moefy {
namespace {

struct ReferencePoints final : Points {
  std::vector<float> squared_norm;
  std::vector<float> step;             // of the int8 values of a row
  std::vector<std::int8_t> quantized;  // [num_rows, dim]
};

const ReferencePoints& own(const Points& points) {
  return static_cast<const ReferencePoints&>(points);
}

// Sixteen partial sums (element l goes to sum l mod 16) that are folded in halves: a fixed order
// that vector units can follow, so that every backend gets the same bits.
double squared_norm(std::span<const float> row) {
  double part[16] = {};
  for (std::size_t l = 0; l < row.size(); ++l) {
    part[l % 16] += static_cast<double>(row[l]) * static_cast<double>(row[l]);
  }
  for (std::size_t half = 8; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

// Largest integers of quantised rows and columns: see Backend::approximate_costs.
constexpr float kLargestRowUnit = 127.0F;
constexpr float kLargestColumnUnit = 63.0F;

// Symmetric integers up to `most` with one step for the whole vector. Returns the step.
float quantize_vector(std::span<const float> values, float most, std::span<std::int8_t> out) {
  float largest = 0;
  for (float value : values) largest = std::max(largest, std::fabs(value));
  const float step = largest > 0 ? largest / most : 1.0F;
  const float inverse = 1.0F / step;
  for (std::size_t l = 0; l < values.size(); ++l) {
    out[l] = static_cast<std::int8_t>(std::lrint(values[l] * inverse));
  }
  return step;
}

std::int32_t int8_dot(std::span<const std::int8_t> a, std::span<const std::int8_t> b) {
  std::int32_t sum = 0;
  for (std::size_t l = 0; l < a.size(); ++l) sum += std::int32_t{a[l]} * std::int32_t{b[l]};
  return sum;
}

std::int32_t fixed_point(float cost, float scale) {
  const float scaled = std::max(cost, 0.0F) * scale;
  return static_cast<std::int32_t>(std::lrint(std::min(scaled, static_cast<float>(kMaxCost))));
}

std::int32_t fixed_point_change(float change, float scale) {
  const float limit = static_cast<float>(kMaxCost);
  return static_cast<std::int32_t>(std::lrint(std::clamp(change * scale, -limit, limit)));
}

}  // namespace

ReferenceBackend::ReferenceBackend(std::size_t num_threads) : threads_(num_threads) {}

CostView ReferenceBackend::cost_buffer(std::size_t slot, std::size_t num_rows,
                                       std::size_t num_sites) {
  CostView view;
  view.num_rows = num_rows;
  view.num_sites = num_sites;
  view.stride = (num_sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
  cost_buffers_.at(slot).resize(num_rows * view.stride);
  view.data = cost_buffers_[slot].data();
  std::fill_n(view.data, num_rows * view.stride, 0);
  return view;
}

std::unique_ptr<Points> ReferenceBackend::make_points() {
  return std::make_unique<ReferencePoints>();
}

void ReferenceBackend::load(Points& points, const RowsView& rows_in, bool quantize) {
  const MatrixView<const float> rows = rows_in.on_host();
  auto& own_points = static_cast<ReferencePoints&>(points);
  own_points.rows = rows;
  own_points.max_squared_norm = 0;
  own_points.sum_squared_norm = 0;
  own_points.block_squared_norm.assign((rows.rows + kSumBlock - 1) / kSumBlock, 0);
  own_points.max_abs = 0;
  own_points.zero_rows = 0;
  own_points.squared_norm.resize(rows.rows);
  own_points.step.assign(quantize ? rows.rows : 0, 0);
  own_points.quantized.assign(quantize ? rows.size() : 0, 0);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    for (std::size_t l = 0; l < rows.cols; ++l) {
      const float value = rows.row(i)[l];
      if (!std::isfinite(value)) {
        throw InputError(fmt::format("row {}, column {} is {}", i, l, value));
      }
      own_points.max_abs = std::max(own_points.max_abs, std::fabs(value));
    }
    const double norm = squared_norm(rows.row(i));
    own_points.squared_norm[i] = static_cast<float>(norm);
    own_points.max_squared_norm = std::max(own_points.max_squared_norm, norm);
    own_points.block_squared_norm[i / kSumBlock] += norm;
    if (norm == 0) ++own_points.zero_rows;
    if (quantize) {
      own_points.step[i] =
          quantize_vector(rows.row(i), kLargestRowUnit,
                          std::span(own_points.quantized).subspan(i * rows.cols, rows.cols));
    }
  }
  for (const double sum : own_points.block_squared_norm) own_points.sum_squared_norm += sum;
}

void ReferenceBackend::costs(const Points& points, const RowsView& centroids, int scale_log2,
                             std::span<const std::int32_t> columns, const CostView& q) {
  const ReferencePoints& x = own(points);
  const float scale = std::ldexp(1.0F, scale_log2);
  for (std::int32_t column : columns) {
    const auto j = static_cast<std::size_t>(column);
    const auto norm = static_cast<float>(squared_norm(centroids.row(j)));
    for (std::size_t i = 0; i < q.num_rows; ++i) {
      float dot = 0;
      for (std::size_t l = 0; l < centroids.cols; ++l) {
        dot += x.rows.row(i)[l] * centroids.row(j)[l];
      }
      q.row(i)[j] = fixed_point(x.squared_norm[i] + norm - 2 * dot, scale);
    }
  }
}

void ReferenceBackend::approximate_costs(const Points& points, RowSelection selection,
                                         const RowsView& centroids, int scale_log2,
                                         const CostView& q) {
  const ReferencePoints& x = own(points);
  const std::size_t dim = centroids.cols;
  const float scale = std::ldexp(1.0F, scale_log2);
  std::vector<std::int8_t> centroid(dim);
  for (std::size_t j = 0; j < q.num_sites; ++j) {
    const float step = quantize_vector(centroids.row(j), kLargestColumnUnit, centroid);
    const auto norm = static_cast<float>(squared_norm(centroids.row(j)));
    for (std::size_t a = 0; a < q.num_rows; ++a) {
      const std::size_t i = selection.global(a);
      const auto row = std::span(x.quantized).subspan(i * dim, dim);
      const float product =
          (-2.0F * x.step[i] * step) * static_cast<float>(int8_dot(row, centroid));
      q.row(a)[j] = fixed_point((x.squared_norm[i] + norm) + product, scale);
    }
  }
}

void ReferenceBackend::copy_quantized(const Points& from, std::span<const std::int32_t> rows,
                                      Points& to) {
  const ReferencePoints& source = own(from);
  auto& target = static_cast<ReferencePoints&>(to);
  const std::size_t dim = from.rows.cols;
  target.rows = {nullptr, rows.size(), dim};
  target.squared_norm.clear();
  target.step.clear();
  target.quantized.clear();
  for (const std::int32_t row : rows) {
    const auto i = static_cast<std::size_t>(row);
    const auto values = std::span(source.quantized).subspan(i * dim, dim);
    target.squared_norm.push_back(source.squared_norm[i]);
    target.step.push_back(source.step[i]);
    target.quantized.insert(target.quantized.end(), values.begin(), values.end());
  }
}

void ReferenceBackend::changed_costs(const Points& points, const RowsView& base_centroids,
                                     const RowsView& centroids, int scale_log2,
                                     std::span<const std::int32_t> columns, bool copy_others,
                                     const CostView& base, const CostView& q) {
  const ReferencePoints& x = own(points);
  const std::size_t dim = centroids.cols;
  const float scale = std::ldexp(1.0F, scale_log2);
  if (copy_others) std::copy_n(base.data, base.num_rows * base.stride, q.data);
  std::vector<float> shift(dim);
  std::vector<std::int8_t> quantized(dim);
  for (std::int32_t column : columns) {
    const auto j = static_cast<std::size_t>(column);
    for (std::size_t l = 0; l < dim; ++l) shift[l] = centroids.row(j)[l] - base_centroids.row(j)[l];
    const float step = quantize_vector(shift, kLargestColumnUnit, quantized);
    const auto norm_change =
        static_cast<float>(squared_norm(centroids.row(j)) - squared_norm(base_centroids.row(j)));
    for (std::size_t i = 0; i < q.num_rows; ++i) {
      const auto row = std::span(x.quantized).subspan(i * dim, dim);
      const float product =
          (-2.0F * x.step[i] * step) * static_cast<float>(int8_dot(row, quantized));
      const std::int32_t change = fixed_point_change(norm_change + product, scale);
      q.row(i)[j] = std::clamp(base.row(i)[j] + change, 0, kMaxCost);
    }
  }
}

void ReferenceBackend::best_sites(const CostView& q, std::span<const std::int32_t> prices,
                                  bool with_margins, SiteChoice& choice) {
  reference::best_sites(q, prices, with_margins, choice);
}

void ReferenceBackend::smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                                      std::span<std::int32_t> key, std::span<std::int32_t> row) {
  reference::smallest_moves(q, label, key, row);
}

CertificateSums ReferenceBackend::certificate_sums(const CostView& q,
                                                   std::span<const std::int32_t> label,
                                                   std::span<const std::int32_t> prices) {
  return reference::certificate_sums(q, label, prices);
}

void ReferenceBackend::update_sums(const Points& points, RowSelection selection,
                                   std::span<const std::int32_t> old_label,
                                   std::span<const std::int32_t> new_label, SiteSums& sums) {
  Matrix<std::int64_t>& values = host_sums(sums);
  const auto add = [&](std::int32_t label, std::size_t i, std::int64_t sign) {
    if (label < 0) return;
    const auto j = static_cast<std::size_t>(label);
    for (std::size_t l = 0; l < points.rows.cols; ++l) {
      const double value = std::ldexp(static_cast<double>(points.rows.row(i)[l]), sums.scale_log2);
      values.row(j)[l] += sign * std::llrint(value);
    }
    sums.count[j] += sign;
  };
  for (std::size_t a = 0; a < new_label.size(); ++a) {
    const std::int32_t before = old_label.empty() ? -1 : old_label[a];
    if (before == new_label[a]) continue;
    add(before, selection.global(a), -1);
    add(new_label[a], selection.global(a), 1);
  }
}

std::vector<double> ReferenceBackend::block_inertia(const Points& points, const RowsView& centroids,
                                                    std::span<const std::int32_t> label) {
  std::vector<double> blocks((points.rows.rows + kSumBlock - 1) / kSumBlock, 0);
  for (std::size_t i = 0; i < points.rows.rows; ++i) {
    const auto centroid = centroids.row(static_cast<std::size_t>(label[i]));
    double row = 0;
    for (std::size_t l = 0; l < centroids.cols; ++l) {
      const double difference =
          static_cast<double>(points.rows.row(i)[l]) - static_cast<double>(centroid[l]);
      row += difference * difference;
    }
    blocks[i / kSumBlock] += row;
  }
  return blocks;
}

void ReferenceBackend::multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                                           MatrixView<float> out) {
  for (std::size_t i = 0; i < a.rows; ++i) {
    for (std::size_t j = 0; j < b.rows; ++j) {
      float dot = 0;
      for (std::size_t l = 0; l < a.cols; ++l) dot += a.row(i)[l] * b.row(j)[l];
      out.row(i)[j] = dot;
    }
  }
}

std::unique_ptr<Backend> make_reference_backend(std::size_t num_threads) {
  return std::make_unique<ReferenceBackend>(num_threads);
}

}  // namespace moefy
