#include "moefy/backend/backend.hpp"

#include <algorithm>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy {

std::size_t RowSelection::count(std::size_t num_rows) const {
  const std::size_t blocks = (num_rows + kSampleBlock - 1) / kSampleBlock;
  if (blocks <= first) return 0;
  const std::size_t selected = (blocks - first + step - 1) / step;
  const std::size_t last_begin = (first + (selected - 1) * step) * kSampleBlock;
  return (selected - 1) * kSampleBlock + std::min(kSampleBlock, num_rows - last_begin);
}

void Backend::write_costs(MatrixView<const std::int32_t> costs, const CostView& q) {
  require(costs.rows == q.num_rows && costs.cols == q.num_sites, "a cost for each row and site");
  for (std::size_t i = 0; i < q.num_rows; ++i) std::ranges::copy(costs.row(i), q.row(i));
}

void Backend::copy_rows(const CostView& from, std::span<const std::int32_t> rows,
                        const CostView& to) {
  require(rows.size() == to.num_rows && from.stride == to.stride, "one row of costs for each");
  for (std::size_t a = 0; a < rows.size(); ++a) {
    std::copy_n(from.row(static_cast<std::size_t>(rows[a])), from.stride, to.row(a));
  }
}

void Backend::load_shifted(Points& points, MatrixView<const float> rows,
                           std::span<const float> shift, bool quantize) {
  require(shift.size() == rows.cols, "the shift has an element for each column");
  points.shifted.resize(rows.rows, rows.cols);
  threads().for_each((rows.rows + kSumBlock - 1) / kSumBlock, [&](std::size_t block) {
    for (std::size_t i = block * kSumBlock; i < std::min((block + 1) * kSumBlock, rows.rows); ++i) {
      const auto from = rows.row(i);
      const auto to = points.shifted.row(i);
      for (std::size_t l = 0; l < rows.cols; ++l) to[l] = from[l] - shift[l];
    }
  });
  load(points, points.shifted.view(), quantize);
}

void Backend::read_rows(const Points& points, std::span<const std::int32_t> rows,
                        MatrixView<float> out) {
  require(out.rows == rows.size() && out.cols == points.rows.cols, "a row of memory for each");
  for (std::size_t a = 0; a < rows.size(); ++a) {
    std::ranges::copy(points.rows.row(static_cast<std::size_t>(rows[a])), out.row(a).begin());
  }
}

std::int64_t Backend::total_cost(const CostView& q, std::span<const std::int32_t> label) {
  require(label.size() == q.num_rows, "a label for each row of costs");
  const CostView costs = on_host(q);
  std::int64_t total = 0;
  for (std::size_t i = 0; i < label.size(); ++i) {
    total += costs.row(i)[static_cast<std::size_t>(label[i])];
  }
  return total;
}

double Backend::inertia(const Points& points, MatrixView<const float> centroids,
                        std::span<const std::int32_t> label) {
  const std::vector<double> blocks = block_inertia(points, centroids, label);
  return std::accumulate(blocks.begin(), blocks.end(), 0.0);
}

}  // namespace moefy
