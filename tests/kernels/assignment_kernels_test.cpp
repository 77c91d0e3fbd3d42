#include <algorithm>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"

namespace moefy::test {
namespace {

struct CostShape {
  std::size_t num_rows, num_sites;
  std::uint64_t num_values;  // costs in [0, num_values)
};

constexpr CostShape kShapes[] = {{1, 1, 9},         {31, 1, 5},      {32, 5, 9},
                                 {33, 16, 1 << 20}, {257, 15, 4},    {1000, 16, 1 << 28},
                                 {1025, 17, 9},     {600, 32, 1000}, {513, 33, 1 << 28},
                                 {700, 64, 3},      {300, 130, 7},   {2000, 48, 1 << 20}};

CostView random_costs(Backend& backend, const CostShape& shape) {
  RandomStream random(17, shape.num_rows, RandomPurpose::verification);
  Matrix<std::int32_t> costs(shape.num_rows, shape.num_sites);
  for (std::int32_t& cost : costs.values()) {
    cost = static_cast<std::int32_t>(random.next_below(shape.num_values));
  }
  const CostView q = backend.cost_buffer(0, shape.num_rows, shape.num_sites);
  backend.write_costs(costs.view(), q);
  return q;
}

std::vector<std::int32_t> random_prices(const CostView& q) {
  RandomStream random(18, q.num_rows, RandomPurpose::verification);
  std::vector<std::int32_t> prices(q.stride, kNoSite);
  for (std::size_t j = 0; j < q.num_sites; ++j) {
    prices[j] = static_cast<std::int32_t>(random.next_below(13)) - 6;
  }
  return prices;
}

std::vector<std::int32_t> random_labels(const CostView& q) {
  RandomStream random(19, q.num_rows, RandomPurpose::verification);
  // The last site stays empty if there are others.
  const std::size_t used = std::max<std::size_t>(1, q.num_sites - 1);
  std::vector<std::int32_t> label(q.num_rows);
  for (std::int32_t& site : label) site = static_cast<std::int32_t>(random.next_below(used));
  return label;
}

/// On one thread, and on three.
class AssignmentKernelsTest : public BackendTest {
 protected:
  std::vector<std::unique_ptr<Backend>> backends() const {
    std::vector<std::unique_ptr<Backend>> both;
    both.push_back(make_backend(GetParam(), 1));
    both.push_back(make_backend(GetParam(), 3));
    return both;
  }
};

TEST(ReferenceAssignmentTest, best_sites_takes_the_lowest_of_equal_sites) {
  const auto backend = make_reference_backend(1);
  const CostView q = backend->cost_buffer(0, 3, 3);
  const std::int32_t costs[3][3] = {{5, 2, 2}, {0, 9, 4}, {7, 8, 1}};
  for (std::size_t i = 0; i < 3; ++i) std::copy_n(costs[i], 3, q.row(i));
  SiteChoice choice;

  backend->best_sites(q, std::vector{1, 0, 0}, true, choice);

  EXPECT_EQ(choice.label, (std::vector{1, 0, 2}));
  EXPECT_EQ(choice.best, (std::vector{2, 1, 1}));
  EXPECT_EQ(choice.margin, (std::vector{0, 3, 7}));
  EXPECT_EQ(choice.count, (std::vector<std::int64_t>{1, 1, 1}));
}

TEST(ReferenceAssignmentTest, smallest_moves_names_the_lowest_row) {
  const auto backend = make_reference_backend(1);
  const CostView q = backend->cost_buffer(0, 3, 2);
  const std::int32_t costs[3][2] = {{5, 8}, {4, 7}, {9, 2}};
  for (std::size_t i = 0; i < 3; ++i) std::copy_n(costs[i], 2, q.row(i));
  std::vector<std::int32_t> key(2 * q.stride), row(2 * q.stride);

  backend->smallest_moves(q, std::vector{0, 0, 0}, key, row);

  EXPECT_EQ(key[1], -7);
  EXPECT_EQ(row[1], 2);
  EXPECT_EQ(key[q.stride], kNoSite);  // site 1 is empty
  EXPECT_EQ(row[q.stride], -1);
  backend->smallest_moves(q, std::vector{0, 0, 1}, key, row);
  EXPECT_EQ(key[1], 3);
  EXPECT_EQ(row[1], 0);
  EXPECT_EQ(key[q.stride], 7);
  EXPECT_EQ(row[q.stride], 2);
}

TEST(ReferenceAssignmentTest, certificate_sums_find_the_first_worst_row) {
  const auto backend = make_reference_backend(1);
  const CostView q = backend->cost_buffer(0, 3, 2);
  const std::int32_t costs[3][2] = {{5, 8}, {4, 1}, {9, 6}};
  for (std::size_t i = 0; i < 3; ++i) std::copy_n(costs[i], 2, q.row(i));

  const CertificateSums sums =
      backend->certificate_sums(q, std::vector{0, 0, 0}, std::vector{0, -2});

  EXPECT_EQ(sums.cost, 18);
  EXPECT_EQ(sums.row_minima, 5 - 1 + 4);
  EXPECT_EQ(sums.worst, 5);
  EXPECT_EQ(sums.worst_row, 1);
  EXPECT_EQ(sums.unconstrained, 5 + 1 + 6);
}

TEST(ReferenceAssignmentTest, ties_are_rows_with_another_site_as_cheap_as_their_own) {
  const auto backend = make_reference_backend(1);
  const CostView q = backend->cost_buffer(0, 3, 3);
  const std::int32_t costs[3][3] = {{5, 2, 4}, {0, 9, 4}, {7, 7, 1}};
  for (std::size_t i = 0; i < 3; ++i) std::copy_n(costs[i], 3, q.row(i));
  const std::vector<std::int32_t> prices{1, 0, -2};

  EXPECT_EQ(backend->tied_rows(q, std::vector{1, 0, 0}, prices), (std::vector{0}));
  EXPECT_EQ(backend->tied_rows(q, std::vector{0, 0, 1}, prices), (std::vector<std::int32_t>{}));
  EXPECT_EQ(backend->total_cost(q, std::vector{1, 0, 2}), 2 + 0 + 1);
}

// Two sites of three rows each. All six rows prefer site 0; costs at site 1 are 1, 2, …, 6 higher.
// Half of the excess of 3, rounded down, is 1: the price of site 0 rises by the second smallest
// margin, 2. Site 1 lacks 3 and falls until one row comes: by the least distance, 1. Together that
// lets three rows go (margins below 3; the third ties, and the lower site keeps it).
TEST(ReferenceAssignmentTest, a_price_pass_moves_both_sides) {
  const auto backend = make_reference_backend(1);
  const CostView q = backend->cost_buffer(0, 6, 2);
  for (std::size_t i = 0; i < 6; ++i) {
    q.row(i)[0] = 10;
    q.row(i)[1] = 11 + static_cast<std::int32_t>(i);
  }
  const std::vector<std::int64_t> size{3, 3};
  std::vector<std::int32_t> prices(q.stride, kNoSite);
  prices[0] = prices[1] = 0;
  PassLimits limits;
  limits.max_passes = 1;
  SiteChoice choice;

  const PassResult result = backend->price_passes(q, {size, size, true}, limits, prices, choice);

  EXPECT_EQ(result.imbalance_before, 3);
  EXPECT_EQ(result.imbalance, 1);
  EXPECT_EQ(result.passes, 1);
  EXPECT_EQ(prices[0], 3);
  EXPECT_EQ(prices[1], 0);
  EXPECT_EQ(choice.label, (std::vector{1, 1, 0, 0, 0, 0}));
  EXPECT_EQ(choice.count, (std::vector<std::int64_t>{4, 2}));
}

TEST_P(AssignmentKernelsTest, best_sites_equal_the_reference) {
  const auto reference = make_reference_backend(1);
  for (const auto& backend : backends()) {
    for (const CostShape& shape : kShapes) {
      SCOPED_TRACE(backend->name());
      SCOPED_TRACE(shape.num_rows);
      const CostView expected_q = random_costs(*reference, shape);
      const CostView q = random_costs(*backend, shape);
      const auto prices = random_prices(q);
      for (const bool with_margins : {true, false}) {
        SiteChoice expected, choice;
        reference->best_sites(expected_q, prices, with_margins, expected);
        backend->best_sites(q, prices, with_margins, choice);
        EXPECT_EQ(choice.label, expected.label);
        EXPECT_EQ(choice.best, expected.best);
        EXPECT_EQ(choice.margin, expected.margin);
        EXPECT_EQ(choice.count, expected.count);
      }
    }
  }
}

TEST_P(AssignmentKernelsTest, smallest_moves_equal_the_reference) {
  const auto reference = make_reference_backend(1);
  for (const auto& backend : backends()) {
    for (const CostShape& shape : kShapes) {
      SCOPED_TRACE(backend->name());
      SCOPED_TRACE(shape.num_rows);
      const CostView q = random_costs(*backend, shape);
      const auto label = random_labels(q);
      AlignedBuffer<std::int32_t> key(q.num_sites * q.stride), row(key.size());
      AlignedBuffer<std::int32_t> expected_key(key.size()), expected_row(key.size());
      reference->smallest_moves(random_costs(*reference, shape), label, expected_key.span(),
                                expected_row.span());

      backend->smallest_moves(q, label, key.span(), row.span());

      for (std::size_t u = 0; u < q.num_sites; ++u) {
        for (std::size_t v = 0; v < q.num_sites; ++v) {
          ASSERT_EQ(key[u * q.stride + v], expected_key[u * q.stride + v]);
          ASSERT_EQ(row[u * q.stride + v], expected_row[u * q.stride + v]);
        }
      }
    }
  }
}

/// What Backend::list_moves says, by sorting.
std::vector<MoveEntry<std::int32_t>> sorted_moves(const CostView& q,
                                                  std::span<const std::int32_t> label,
                                                  std::size_t length) {
  std::vector<MoveEntry<std::int32_t>> list;
  for (std::size_t u = 0; u < q.num_sites; ++u) {
    for (std::size_t v = 0; v < q.num_sites; ++v) {
      std::vector<std::pair<std::int32_t, std::int32_t>> moves;
      for (std::size_t i = 0; i < label.size(); ++i) {
        if (label[i] != static_cast<std::int32_t>(u)) continue;
        moves.emplace_back(q.row(i)[v] - q.row(i)[u], static_cast<std::int32_t>(i));
      }
      std::ranges::sort(moves);
      moves.resize(length, {kNoSite, -1});
      for (const auto& [key, row] : moves) list.push_back({key, row});
    }
  }
  return list;
}

TEST_P(AssignmentKernelsTest, lists_the_smallest_moves_of_every_pair_or_says_that_it_does_not) {
  const auto reference = make_reference_backend(1);
  for (const auto& backend : backends()) {
    for (const CostShape& shape : kShapes) {
      for (const std::size_t length : {1, 16, 32}) {
        SCOPED_TRACE(backend->name());
        SCOPED_TRACE(shape.num_rows);
        const CostView q = random_costs(*backend, shape);
        if (q.num_sites * q.num_sites * length > kMostListedMoves) continue;
        const auto label = random_labels(q);
        std::vector<MoveEntry<std::int32_t>> list;

        const bool listed = backend->list_moves(q, label, length, list);

        ASSERT_EQ(listed, backend->name().starts_with("cuda"));
        if (!listed) continue;
        const auto expected = sorted_moves(random_costs(*reference, shape), label, length);
        ASSERT_EQ(list.size(), expected.size());
        for (std::size_t a = 0; a < list.size(); ++a) {
          ASSERT_EQ(list[a].key, expected[a].key) << a;
          ASSERT_EQ(list[a].row, expected[a].row) << a;
        }
      }
    }
  }
}

TEST_P(AssignmentKernelsTest, certificate_sums_equal_the_reference) {
  const auto reference = make_reference_backend(1);
  for (const auto& backend : backends()) {
    for (const CostShape& shape : kShapes) {
      SCOPED_TRACE(backend->name());
      SCOPED_TRACE(shape.num_rows);
      const CostView q = random_costs(*backend, shape);
      const auto label = random_labels(q);
      const auto prices = random_prices(q);

      const CertificateSums sums = backend->certificate_sums(q, label, prices);
      const CertificateSums expected =
          reference->certificate_sums(random_costs(*reference, shape), label, prices);

      EXPECT_EQ(sums.cost, expected.cost);
      EXPECT_EQ(sums.row_minima, expected.row_minima);
      EXPECT_EQ(sums.worst, expected.worst);
      EXPECT_EQ(sums.worst_row, expected.worst_row);
      EXPECT_EQ(sums.unconstrained, expected.unconstrained);
    }
  }
}

/// Bounds of 1/k of the rows each, `spread` wide.
struct Room {
  Room(const CostView& q, std::int64_t spread) {
    const auto rows = static_cast<std::int64_t>(q.num_rows);
    const auto sites = static_cast<std::int64_t>(q.num_sites);
    for (std::int64_t j = 0; j < sites; ++j) {
      const std::int64_t share = (j + 1) * rows / sites - j * rows / sites;
      lower.push_back(std::max<std::int64_t>(share - spread, 0));
      upper.push_back(share + spread);
    }
    room = {lower, upper, spread == 0};
  }
  std::vector<std::int64_t> lower, upper;
  SiteRoom room;
};

/// Runs the same price passes on two backends.
void compare_passes(Backend& reference, Backend& backend, const CostShape& shape,
                    std::int64_t spread, const PassLimits& limits) {
  SCOPED_TRACE(testing::Message() << backend.name() << ", " << shape.num_rows << " x "
                                  << shape.num_sites << ", bounds +- " << spread << ", at most "
                                  << limits.max_passes << " passes");
  const CostView expected_q = random_costs(reference, shape);
  const CostView q = random_costs(backend, shape);
  const Room bounds(q, spread);
  std::vector<std::int32_t> expected_prices = random_prices(q);
  std::vector<std::int32_t> prices = expected_prices;
  SiteChoice expected, choice;

  const PassResult expected_result =
      reference.price_passes(expected_q, bounds.room, limits, expected_prices, expected);
  const PassResult result = backend.price_passes(q, bounds.room, limits, prices, choice);

  EXPECT_EQ(result.imbalance_before, expected_result.imbalance_before);
  EXPECT_EQ(result.imbalance, expected_result.imbalance);
  EXPECT_EQ(result.passes, expected_result.passes);
  EXPECT_EQ(prices, expected_prices);
  EXPECT_EQ(choice.label, expected.label);
  EXPECT_EQ(choice.count, expected.count);
}

TEST_P(AssignmentKernelsTest, price_passes_equal_the_reference) {
  const auto reference = make_reference_backend(1);
  PassLimits to_the_end;
  to_the_end.min_gain = -100;  // also passes that make it worse
  PassLimits while_they_pay;
  while_they_pay.min_gain = 1;
  PassLimits none;
  none.max_passes = 0;
  for (const auto& backend : backends()) {
    for (std::size_t rows : kSizes) {
      compare_passes(*reference, *backend, {rows, 5, 1 << 20}, 0, to_the_end);
    }
    for (std::size_t sites : {1, 16, 17, 33}) {
      compare_passes(*reference, *backend, {300, sites, 9}, 0, while_they_pay);
      compare_passes(*reference, *backend, {300, sites, 1 << 28}, 2, while_they_pay);
    }
    compare_passes(*reference, *backend, {4500, 5, 1 << 20}, 3, while_they_pay);
    // More rows of a site, and more samples, than a block of a GPU keeps in its own memory.
    compare_passes(*reference, *backend, {50000, 2, 1 << 20}, 0, to_the_end);
    compare_passes(*reference, *backend, {257, 70, 1 << 20}, 1, while_they_pay);
    compare_passes(*reference, *backend, {257, 5, 1 << 20}, 0, none);
  }
}

/// Runs the same phase on two backends.
void compare_auctions(Backend& reference, Backend& backend, const CostShape& shape,
                      const AuctionLimits& limits) {
  SCOPED_TRACE(testing::Message() << backend.name() << ", " << shape.num_rows << " x "
                                  << shape.num_sites << ", epsilon " << limits.epsilon);
  const CostView expected_q = random_costs(reference, shape);
  const CostView q = random_costs(backend, shape);
  const std::vector<std::int64_t> size = Room(q, 0).lower;
  std::vector<std::int32_t> expected_prices = random_prices(q);
  std::vector<std::int32_t> prices = expected_prices;

  const AuctionResult expected = reference.auction_phase(expected_q, size, limits, expected_prices);
  const AuctionResult result = backend.auction_phase(q, size, limits, prices);

  EXPECT_EQ(result.rounds, expected.rounds);
  EXPECT_EQ(result.bids, expected.bids);
  EXPECT_EQ(result.unassigned, expected.unassigned);
  EXPECT_EQ(prices, expected_prices);
}

TEST_P(AssignmentKernelsTest, auction_phases_equal_the_reference) {
  const auto reference = make_reference_backend(1);
  AuctionLimits most;
  most.epsilon = kMaxCost;
  AuctionLimits some;
  some.epsilon = 1 << 12;
  AuctionLimits nearly;
  nearly.epsilon = 1 << 17;
  nearly.enough = 4;
  AuctionLimits few_rounds;
  few_rounds.max_rounds = 3;
  AuctionLimits few_bids;
  few_bids.max_bids = 301;
  for (const auto& backend : backends()) {
    compare_auctions(*reference, *backend, {1, 1, 9}, some);
    for (std::size_t rows : {31, 32, 33, 257, 1000}) {
      compare_auctions(*reference, *backend, {rows, 7, 1 << 20}, some);
      compare_auctions(*reference, *backend, {rows, 31, 1 << 28}, most);
    }
    for (std::size_t sites : {1, 2, 16, 17, 33, 70, 130}) {
      compare_auctions(*reference, *backend, {300, sites, 3}, {});
      compare_auctions(*reference, *backend, {300, sites, 1 << 20}, nearly);
      compare_auctions(*reference, *backend, {300, sites, 9}, few_rounds);
      compare_auctions(*reference, *backend, {300, sites, 9}, few_bids);
    }
  }
}

TEST_P(AssignmentKernelsTest, total_cost_and_ties_equal_the_reference) {
  const auto reference = make_reference_backend(1);
  for (const auto& backend : backends()) {
    for (const CostShape& shape : kShapes) {
      SCOPED_TRACE(testing::Message() << backend->name() << ", " << shape.num_rows);
      const CostView expected_q = random_costs(*reference, shape);
      const CostView q = random_costs(*backend, shape);
      const auto label = random_labels(q);
      const auto prices = random_prices(q);

      EXPECT_EQ(backend->total_cost(q, label), reference->total_cost(expected_q, label));
      EXPECT_EQ(backend->tied_rows(q, label, prices),
                reference->tied_rows(expected_q, label, prices));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AssignmentKernelsTest, testing::ValuesIn(tested_backends()),
                         test_suffix);

}  // namespace
}  // namespace moefy::test
