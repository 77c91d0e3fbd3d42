// Every kernel once, small enough for one thread a CUDA thread: ThreadSanitizer looks for races in
// shared and device memory. tests/kernels compares the backends at all sizes.
#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "simt.hpp"

namespace moefy {
namespace {

/// All that a backend computes from the same rows.
struct Everything {
  std::vector<std::int32_t> exact, approximate, changed, copied;
  SiteChoice choice;
  std::vector<std::int32_t> key, row;
  CertificateSums certificate;
  std::vector<std::int32_t> prices, tied;
  SiteChoice balanced;
  PassResult passes;
  std::vector<std::int32_t> auction_prices;
  AuctionResult auction;
  std::int64_t total = 0;
  std::vector<std::int64_t> sums;
  std::vector<float> means;
  std::vector<double> mean_shifts, shifts;
  std::vector<std::int32_t> moved_sites, costs_of_means;
  double inertia = 0;
  std::vector<float> products;
};

std::vector<std::int32_t> values(Backend& backend, const CostView& q) {
  const CostView costs = backend.on_host(q);
  return {costs.data, costs.data + costs.num_rows * costs.stride};
}

Everything compute(Backend& backend, std::size_t num_rows, std::size_t num_sites) {
  constexpr std::size_t kDim = 37;
  constexpr int kScale = 18;
  const Matrix<float> rows = test::normal_matrix(num_rows, kDim, 1);
  const Matrix<float> centroids = test::normal_matrix(num_sites, kDim, 2);
  const Matrix<float> moved = test::normal_matrix(num_sites, kDim, 3);
  const std::vector<std::int32_t> columns = test::all_columns(num_sites);
  const auto points = backend.make_points();
  backend.load(*points, rows.view(), true);
  Everything all;

  const CostView exact = backend.cost_buffer(0, num_rows, num_sites);
  backend.costs(*points, centroids.view(), kScale, columns, exact);
  all.exact = values(backend, exact);
  const CostView q = backend.cost_buffer(1, num_rows, num_sites);
  backend.approximate_costs(*points, {}, centroids.view(), kScale, q);
  all.approximate = values(backend, q);
  const CostView changed = backend.cost_buffer(2, num_rows, num_sites);
  backend.changed_costs(*points, centroids.view(), moved.view(), kScale, columns, true, q, changed);
  all.changed = values(backend, changed);
  const std::vector<std::int32_t> some{0, 3, 4};
  const auto copies = backend.make_points();
  backend.copy_quantized(*points, some, *copies);
  const CostView base = backend.cost_buffer(0, some.size(), num_sites);
  backend.copy_rows(q, some, base);
  const CostView copied = backend.cost_buffer(3, some.size(), num_sites);
  backend.changed_costs(*copies, centroids.view(), moved.view(), kScale, columns, true, base,
                        copied);
  all.copied = values(backend, copied);

  std::vector<std::int32_t> prices(q.stride, kNoSite);
  std::fill_n(prices.begin(), num_sites, 0);
  prices[1] = 1000;
  backend.best_sites(q, prices, true, all.choice);
  all.key.resize(num_sites * q.stride);
  all.row.resize(num_sites * q.stride);
  backend.smallest_moves(q, all.choice.label, all.key, all.row);
  all.certificate = backend.certificate_sums(q, all.choice.label, prices);
  all.total = backend.total_cost(q, all.choice.label);
  all.tied = backend.tied_rows(q, all.choice.label, prices);
  const std::vector<std::int64_t> size(num_sites, num_rows / num_sites);
  all.prices = prices;
  PassLimits limits;
  limits.max_passes = 2;
  all.passes = backend.price_passes(q, {size, size, true}, limits, all.prices, all.balanced);

  all.auction_prices = prices;
  AuctionLimits bids;
  bids.epsilon = 1 << 16;
  bids.max_rounds = 3;
  std::vector<std::int64_t> places = size;
  places[0] += static_cast<std::int64_t>(num_rows % num_sites);
  all.auction = backend.auction_phase(q, places, bids, all.auction_prices);

  const auto sums = test::empty_sums(backend, num_sites, kDim, 30);
  backend.update_sums(*points, {}, {}, all.choice.label, *sums);
  all.sums = test::read(*sums).sum;
  EXPECT_EQ(sums->on_host(std::vector{2}).sum.row(2)[0], all.sums[2 * kDim]);
  std::vector<std::int32_t> filled;
  for (const std::int32_t j : columns) {
    if (sums->count[static_cast<std::size_t>(j)] > 0) filled.push_back(j);
  }
  const auto old_means = test::centroids_of(backend, centroids.view());
  const auto means = test::centroids_of(backend, old_means->view());
  all.mean_shifts = sums->move_to_means(filled, *means);
  all.means = test::read(*means);
  all.moved_sites = means->changed_sites(*old_means);
  all.shifts = means->squared_shifts(*old_means);
  backend.approximate_costs(*points, {}, means->view(), kScale, q);
  all.costs_of_means = values(backend, q);
  all.inertia = backend.inertia(*points, centroids.view(), all.choice.label);
  Matrix<float> products(num_rows, num_sites);
  backend.multiply_transposed(rows.view(), centroids.view(), products.view());
  all.products.assign(products.values().begin(), products.values().end());
  return all;
}

class CudaKernelsTest : public testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override { simt::set_device_count(1); }
};

TEST_P(CudaKernelsTest, agree_with_the_reference) {
  const std::size_t num_sites = GetParam();
  const Everything expected = compute(*make_reference_backend(1), 150, num_sites);

  const Everything found = compute(*make_cuda_backend(0, 1), 150, num_sites);

  EXPECT_EQ(found.approximate, expected.approximate);
  EXPECT_EQ(found.changed, expected.changed);
  EXPECT_EQ(found.copied, expected.copied);
  EXPECT_EQ(found.choice.label, expected.choice.label);
  EXPECT_EQ(found.choice.best, expected.choice.best);
  EXPECT_EQ(found.choice.margin, expected.choice.margin);
  EXPECT_EQ(found.choice.count, expected.choice.count);
  EXPECT_EQ(found.key, expected.key);
  EXPECT_EQ(found.row, expected.row);
  EXPECT_EQ(found.certificate.cost, expected.certificate.cost);
  EXPECT_EQ(found.certificate.row_minima, expected.certificate.row_minima);
  EXPECT_EQ(found.certificate.worst, expected.certificate.worst);
  EXPECT_EQ(found.total, expected.total);
  EXPECT_EQ(found.tied, expected.tied);
  EXPECT_EQ(found.passes.passes, expected.passes.passes);
  EXPECT_EQ(found.prices, expected.prices);
  EXPECT_EQ(found.balanced.label, expected.balanced.label);
  EXPECT_EQ(found.auction_prices, expected.auction_prices);
  EXPECT_EQ(found.auction.rounds, expected.auction.rounds);
  EXPECT_EQ(found.auction.bids, expected.auction.bids);
  EXPECT_EQ(found.auction.unassigned, expected.auction.unassigned);
  EXPECT_EQ(found.sums, expected.sums);
  EXPECT_EQ(found.means, expected.means);
  EXPECT_EQ(found.mean_shifts, expected.mean_shifts);
  EXPECT_EQ(found.shifts, expected.shifts);
  EXPECT_EQ(found.moved_sites, expected.moved_sites);
  EXPECT_EQ(found.costs_of_means, expected.costs_of_means);
  EXPECT_NEAR(found.inertia, expected.inertia, 1e-9 * expected.inertia);
  for (std::size_t e = 0; e < found.exact.size(); ++e) {
    ASSERT_NEAR(found.exact[e], expected.exact[e], 1 << 8) << "cost " << e;  // 2^-10
  }
  for (std::size_t e = 0; e < found.products.size(); ++e) {
    ASSERT_NEAR(found.products[e], expected.products[e], 1e-4) << "product " << e;
  }
}

INSTANTIATE_TEST_SUITE_P(Sites, CudaKernelsTest, testing::Values(5, 33));

}  // namespace
}  // namespace moefy
