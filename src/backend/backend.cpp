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

namespace {

HostCosts<std::int32_t> host_costs(const CostView& q) {
  require(q.space == MemorySpace::host, "the costs are in host memory");
  return {q.data, q.num_rows, q.num_sites, q.stride};
}

}  // namespace

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

void Backend::load_shifted(Points& points, const RowsView& rows_in, std::span<const float> shift,
                           bool quantize) {
  const MatrixView<const float> rows = rows_in.on_host();
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
  const MatrixView<const float> from = points.rows.on_host();
  for (std::size_t a = 0; a < rows.size(); ++a) {
    std::ranges::copy(from.row(static_cast<std::size_t>(rows[a])), out.row(a).begin());
  }
}

double Backend::inertia(const Points& points, const RowsView& centroids,
                        std::span<const std::int32_t> label) {
  const std::vector<double> blocks = block_inertia(points, centroids, label);
  return std::accumulate(blocks.begin(), blocks.end(), 0.0);
}

PassResult Backend::price_passes(const CostView& q, const SiteRoom& room, const PassLimits& limits,
                                 std::span<std::int32_t> prices, SiteChoice& choice) {
  const auto best = [&](std::span<const std::int32_t> now, bool with_margins, SiteChoice& out) {
    best_sites(q, now, with_margins, out);
  };
  return host_passes_.run(host_costs(on_host(q)), best, room, limits, kMaxCost, prices, choice);
}

AuctionResult Backend::auction_phase(const CostView& q, std::span<const std::int64_t> size,
                                     const AuctionLimits& limits, std::span<std::int32_t> prices) {
  return host_auction_.run(host_costs(on_host(q)), threads(), size, limits, prices);
}

std::int64_t Backend::total_cost(const CostView& q, std::span<const std::int32_t> label) {
  return moefy::total_cost(host_costs(on_host(q)), label);
}

std::vector<std::int32_t> Backend::tied_rows(const CostView& q, std::span<const std::int32_t> label,
                                             std::span<const std::int32_t> prices) {
  return moefy::tied_rows(host_costs(on_host(q)), label, prices);
}

}  // namespace moefy
