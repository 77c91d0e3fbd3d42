#include "moefy/backend/sharded_backend.hpp"

#include <limits>
#include <numeric>
#include <tuple>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "moefy/core/error.hpp"
#include "support/sharded.hpp"

namespace moefy {
namespace {

constexpr int kScale = 18;
constexpr std::size_t kDim = 33;

std::vector<std::int32_t> spread_labels(std::size_t count, std::size_t sites, std::size_t seed) {
  std::vector<std::int32_t> label(count);
  for (std::size_t i = 0; i < count; ++i)
    label[i] = static_cast<std::int32_t>((i * i + seed * i + seed) % sites);
  return label;
}

std::vector<std::int32_t> every(std::size_t step, std::size_t count) {
  std::vector<std::int32_t> rows;
  for (std::size_t i = step / 2; i < count; i += step) rows.push_back(static_cast<std::int32_t>(i));
  return rows;
}

std::vector<std::int32_t> prices_for(const CostView& q, std::int32_t step) {
  std::vector<std::int32_t> prices(q.stride, kNoSite);
  for (std::size_t j = 0; j < q.num_sites; ++j) prices[j] = static_cast<std::int32_t>(j) * step;
  return prices;
}

std::vector<std::int32_t> values_of(Backend& backend, const CostView& q) {
  const CostView costs = backend.on_host(q);
  std::vector<std::int32_t> values;
  for (std::size_t i = 0; i < q.num_rows; ++i)
    values.insert(values.end(), costs.row(i), costs.row(i) + q.num_sites);
  return values;
}

void expect_same(const SiteChoice& expected, const SiteChoice& found) {
  EXPECT_EQ(expected.label, found.label);
  EXPECT_EQ(expected.best, found.best);
  EXPECT_EQ(expected.margin, found.margin);
  EXPECT_EQ(expected.count, found.count);
}

/// The same rows, plain and sharded.
class ShardedBackendTest
    : public testing::TestWithParam<std::tuple<std::string, std::size_t, std::size_t>> {
 protected:
  void SetUp() override {
    if (name() == "cuda" && cuda_device_count() == 0) GTEST_SKIP() << "no NVIDIA GPU here";
    plain_ = test::make_backend(name());
    sharded_ = std::make_unique<test::Sharded>(std::get<1>(GetParam()),
                                               [] { return test::make_backend(name()); });
    values_ = test::normal_matrix(num_rows(), kDim, 3);
    plain_points_ = plain_->make_points();
    sharded_points_ = sharded().make_points();
    plain_->load(*plain_points_, values_.view(), true);
    sharded().load(*sharded_points_, sharded_->put(values_.view()), true);
  }

  static const std::string& name() { return std::get<0>(GetParam()); }
  static std::size_t num_rows() { return std::get<2>(GetParam()); }
  Backend& sharded() { return sharded_->backend(); }

  /// make(backend, points) is equal for both.
  template <class Make>
  void expect_equal(const Make& make) {
    EXPECT_EQ(make(*plain_, *plain_points_), make(sharded(), *sharded_points_));
  }
  /// check(backend, exact costs) for both, of 7 sites.
  template <class Make>
  void expect_equal_of_costs(const Make& make) {
    const Matrix<float> centroids = test::normal_matrix(7, kDim, 4);
    expect_equal([&](Backend& backend, Points& points) {
      const CostView q = backend.cost_buffer(1, num_rows(), 7);
      backend.costs(points, centroids.view(), kScale, test::all_columns(7), q);
      return make(backend, q);
    });
  }

  std::unique_ptr<Backend> plain_;
  std::unique_ptr<test::Sharded> sharded_;
  Matrix<float> values_;
  std::unique_ptr<Points> plain_points_;
  std::unique_ptr<Points> sharded_points_;
};

TEST_P(ShardedBackendTest, measures_rows) {
  EXPECT_EQ(plain_points_->max_squared_norm, sharded_points_->max_squared_norm);
  EXPECT_EQ(plain_points_->sum_squared_norm, sharded_points_->sum_squared_norm);
  EXPECT_EQ(plain_points_->block_squared_norm, sharded_points_->block_squared_norm);
  EXPECT_EQ(plain_points_->max_abs, sharded_points_->max_abs);
  EXPECT_EQ(plain_points_->zero_rows, sharded_points_->zero_rows);
}

TEST_P(ShardedBackendTest, reads_rows_in_any_order) {
  std::vector<std::int32_t> rows = every(3, num_rows());
  rows.push_back(static_cast<std::int32_t>(num_rows()) - 1);
  rows.push_back(0);
  rows.push_back(0);
  std::ranges::reverse(rows);
  expect_equal([&](Backend& backend, Points& points) {
    Matrix<float> out(rows.size(), kDim);
    backend.read_rows(points, rows, out.view());
    return std::vector<float>(out.values().begin(), out.values().end());
  });
}

TEST_P(ShardedBackendTest, shifts_rows) {
  const Matrix<float> shift = test::normal_matrix(1, kDim, 5);
  const Matrix<float> centroids = test::normal_matrix(3, kDim, 6);
  plain_->load_shifted(*plain_points_, values_.view(), shift.row(0), true);
  sharded().load_shifted(*sharded_points_, sharded_->rows().view(), shift.row(0), true);
  EXPECT_EQ(plain_points_->sum_squared_norm, sharded_points_->sum_squared_norm);
  expect_equal([&](Backend& backend, Points& points) {
    const CostView q = backend.cost_buffer(0, num_rows(), 3);
    backend.costs(points, centroids.view(), kScale, test::all_columns(3), q);
    return values_of(backend, q);
  });
}

TEST_P(ShardedBackendTest, computes_exact_costs_of_some_columns) {
  const Matrix<float> before = test::normal_matrix(17, kDim, 4);
  const Matrix<float> after = test::normal_matrix(17, kDim, 5);
  const std::vector<std::int32_t> columns = {0, 3, 16};
  expect_equal([&](Backend& backend, Points& points) {
    const CostView q = backend.cost_buffer(0, num_rows(), 17);
    backend.costs(points, before.view(), kScale, test::all_columns(17), q);
    backend.costs(points, after.view(), kScale, columns, q);
    return values_of(backend, q);
  });
}

TEST_P(ShardedBackendTest, approximates_costs_of_a_selection) {
  const Matrix<float> centroids = test::normal_matrix(5, kDim, 4);
  for (const std::size_t step : {1, 2, 3, 4, 7}) {
    const RowSelection selection{step};
    expect_equal([&](Backend& backend, Points& points) {
      const CostView q = backend.cost_buffer(0, selection.count(num_rows()), 5);
      backend.approximate_costs(points, selection, centroids.view(), kScale, q);
      return values_of(backend, q);
    });
  }
}

TEST_P(ShardedBackendTest, tracks_changes_of_cost_of_all_rows_and_of_some) {
  const Matrix<float> base_centroids = test::normal_matrix(6, kDim, 4);
  Matrix<float> centroids = test::normal_matrix(6, kDim, 4);
  for (float& value : centroids.row(2)) value *= 1.1F;
  for (float& value : centroids.row(5)) value += 0.01F;
  const std::vector<std::int32_t> columns = {2, 5};
  const std::vector<std::int32_t> some = every(5, num_rows());
  expect_equal([&](Backend& backend, Points& points) {
    const CostView base = backend.cost_buffer(1, num_rows(), 6);
    backend.costs(points, base_centroids.view(), kScale, test::all_columns(6), base);
    const CostView q = backend.cost_buffer(0, num_rows(), 6);
    backend.changed_costs(points, base_centroids.view(), centroids.view(), kScale, columns, true,
                          base, q);
    std::vector<std::int32_t> values = values_of(backend, q);
    if (some.empty()) return values;
    const auto some_points = backend.make_points();
    backend.copy_quantized(points, some, *some_points);
    const CostView some_base = backend.cost_buffer(2, some.size(), 6);
    backend.copy_rows(base, some, some_base);
    const CostView some_q = backend.cost_buffer(3, some.size(), 6);
    backend.changed_costs(*some_points, base_centroids.view(), centroids.view(), kScale, columns,
                          true, some_base, some_q);
    const std::vector<std::int32_t> more = values_of(backend, some_q);
    values.insert(values.end(), more.begin(), more.end());
    return values;
  });
}

TEST_P(ShardedBackendTest, writes_costs) {
  Matrix<std::int32_t> costs(num_rows(), 3);
  std::iota(costs.values().begin(), costs.values().end(), 0);
  expect_equal([&](Backend& backend, Points&) {
    const CostView q = backend.cost_buffer(2, num_rows(), 3);
    backend.write_costs(costs.view(), q);
    return values_of(backend, q);
  });
}

TEST_P(ShardedBackendTest, finds_best_sites) {
  for (const bool with_margins : {false, true}) {
    std::vector<SiteChoice> choices;
    expect_equal_of_costs([&](Backend& backend, const CostView& q) {
      backend.best_sites(q, prices_for(q, 30), with_margins, choices.emplace_back());
      return 0;
    });
    expect_same(choices[0], choices[1]);
  }
}

TEST_P(ShardedBackendTest, balances_by_price_passes) {
  const auto rows = static_cast<std::int64_t>(num_rows());
  const std::vector<std::int64_t> lower(7, rows / 7);
  const std::vector<std::int64_t> upper(7, (rows + 6) / 7);
  std::vector<std::vector<std::int32_t>> found;
  expect_equal_of_costs([&](Backend& backend, const CostView& q) {
    std::vector<std::int32_t> prices = prices_for(q, 0);
    SiteChoice choice;
    const PassResult result = backend.price_passes(q, {lower, upper, false}, {}, prices, choice);
    found.push_back(prices);
    found.push_back(choice.label);
    return result.passes;
  });
  EXPECT_EQ(found[0], found[2]);
  EXPECT_EQ(found[1], found[3]);
}

TEST_P(ShardedBackendTest, finds_smallest_moves_and_ties) {
  const std::vector<std::int32_t> label = spread_labels(num_rows(), 6, 1);  // site 6 is empty
  expect_equal_of_costs([&](Backend& backend, const CostView& q) {
    AlignedBuffer<std::int32_t> key(7 * q.stride);
    AlignedBuffer<std::int32_t> row(7 * q.stride);
    backend.smallest_moves(q, label, key.span(), row.span());
    std::vector<std::int32_t> moves;
    for (std::size_t u = 0; u < 7; ++u) {
      moves.insert(moves.end(), key.data() + u * q.stride, key.data() + u * q.stride + 7);
      moves.insert(moves.end(), row.data() + u * q.stride, row.data() + u * q.stride + 7);
    }
    return moves;
  });
  expect_equal([&](Backend& backend, Points&) {
    // Few values, so that there are ties.
    Matrix<std::int32_t> costs(num_rows(), 4);
    for (std::size_t e = 0; e < costs.values().size(); ++e)
      costs.values()[e] = static_cast<std::int32_t>(e * e % 5);
    const CostView q = backend.cost_buffer(2, num_rows(), 4);
    backend.write_costs(costs.view(), q);
    return backend.tied_rows(q, spread_labels(num_rows(), 4, 2), prices_for(q, 1));
  });
}

TEST_P(ShardedBackendTest, adds_up_costs_and_certificates) {
  const std::vector<std::int32_t> label = spread_labels(num_rows(), 7, 2);
  expect_equal_of_costs([&](Backend& backend, const CostView& q) {
    const CertificateSums sums = backend.certificate_sums(q, label, prices_for(q, 11));
    return std::vector<std::int64_t>{sums.cost,          sums.row_minima,
                                     sums.worst,         sums.worst_row,
                                     sums.unconstrained, backend.total_cost(q, label)};
  });
}

test::SumsOnHost sums_of_a_selection(Backend& backend, const Points& points, std::size_t step) {
  const RowSelection selection{step};
  const std::size_t count = selection.count(points.rows.rows);
  const std::vector<std::int32_t> before = spread_labels(count, 6, 3);
  const std::vector<std::int32_t> after = spread_labels(count, 6, 4);
  const auto sums = test::empty_sums(backend, 6, kDim, 38);
  // Twice, so that sums that are there already are added to.
  backend.update_sums(points, selection, {}, after, *sums);
  backend.update_sums(points, selection, {}, before, *sums);
  backend.update_sums(points, selection, before, after, *sums);
  return test::read(*sums);
}

/// Few rows move, the last one to a site that has had none, and one comes from nowhere.
test::SumsOnHost sums_of_few_moves(Backend& backend, const Points& points) {
  const std::size_t count = points.rows.rows;
  std::vector<std::int32_t> before = spread_labels(count, 20, 3);
  const auto sums = test::empty_sums(backend, 30, kDim, 38);
  before[count / 2] = -1;
  std::vector<std::int32_t> after = before;
  after[count / 2] = 7;
  after[count - 1] = 29;
  if (count > 2) after[2] = (after[2] + 1) % 20;
  std::vector<std::int32_t> first = before;
  first[count / 2] = 0;
  backend.update_sums(points, {}, {}, first, *sums);
  backend.update_sums(points, {}, before, after, *sums);
  backend.update_sums(points, {}, after, after, *sums);  // none moves
  return test::read(*sums);
}

TEST_P(ShardedBackendTest, updates_sums_of_a_selection) {
  for (const std::size_t step : {1, 3, 5}) {
    expect_equal([&](Backend& backend, Points& points) {
      return sums_of_a_selection(backend, points, step);
    });
  }
}

TEST_P(ShardedBackendTest, updates_sums_of_few_moves) { expect_equal(sums_of_few_moves); }

/// With a reducer, whose sums lie in host memory.
class ReducingBackendTest : public ShardedBackendTest {};

std::vector<std::string> host_backends() {
  std::vector<std::string> names = test::all_backends();
  std::erase(names, "cuda");
  return names;
}

TEST_P(ReducingBackendTest, adds_up_sums_where_they_lie) {
  const std::size_t members = std::get<1>(GetParam());
  test::Sharded reducing(
      members, [] { return test::make_backend(name()); }, true);
  Backend& backend = reducing.backend();
  const auto points = backend.make_points();
  backend.load(*points, reducing.put(values_.view()), true);

  for (const std::size_t step : {1, 3, 5}) {
    EXPECT_EQ(sums_of_a_selection(*plain_, *plain_points_, step),
              sums_of_a_selection(backend, *points, step));
  }
  EXPECT_EQ(sums_of_few_moves(*plain_, *plain_points_), sums_of_few_moves(backend, *points));

  // Members without rows, too; where nothing moves there is nothing to add up.
  for (std::size_t m = 0; m < members; ++m)
    EXPECT_EQ(reducing.reducer(m).num_begun, reducing.reducer(0).num_begun);
  EXPECT_LE(reducing.reducer(0).num_begun, 3 * 3 + 2);
}

TEST_P(ShardedBackendTest, sums_squared_distances) {
  const Matrix<float> centroids = test::normal_matrix(5, kDim, 4);
  const std::vector<std::int32_t> label = spread_labels(num_rows(), 5, 5);
  expect_equal([&](Backend& backend, Points& points) {
    return backend.inertia(points, centroids.view(), label);
  });
}

TEST_P(ShardedBackendTest, keeps_measures_and_adds_rows) {
  const std::vector<std::int32_t> kept = every(2, num_rows());
  if (kept.empty()) return;
  const std::vector<std::int32_t> label = spread_labels(kept.size(), 4, 6);
  const auto results = [&](RowMatrix& rows) {
    std::vector<double> all = rows.squared_norms();
    rows.keep(kept, true);
    EXPECT_EQ(rows.view().rows, kept.size());
    const std::vector<double> norms = rows.squared_norms();
    Matrix<double> sum(4, kDim);
    std::ranges::fill(sum.values(), 0.5);
    rows.add_unit_rows(label, sum);
    all.insert(all.end(), norms.begin(), norms.end());
    all.insert(all.end(), sum.values().begin(), sum.values().end());
    return all;
  };
  const auto host_rows = make_host_rows(plain_->threads());
  host_rows->resize(num_rows(), kDim);
  host_rows->fill_columns(0, kDim, [&](MatrixView<float> out) {
    std::ranges::copy(values_.values(), out.values().begin());
  });
  sharded_->put(values_.view(), kept);

  EXPECT_EQ(results(*host_rows), results(sharded_->rows()));

  // Shards of what was kept begin at blocks again.
  plain_->load(*plain_points_, host_rows->view(), true);
  sharded().load(*sharded_points_, sharded_->rows().view(), true);
  EXPECT_EQ(plain_points_->block_squared_norm, sharded_points_->block_squared_norm);
}

std::string name_of(const testing::TestParamInfo<ShardedBackendTest::ParamType>& parameter) {
  std::string text = std::get<0>(parameter.param) + "_" +
                     std::to_string(std::get<1>(parameter.param)) + "_members_" +
                     std::to_string(std::get<2>(parameter.param)) + "_rows";
  std::ranges::replace(text, '-', '_');
  return text;
}
INSTANTIATE_TEST_SUITE_P(Shards, ShardedBackendTest,
                         testing::Combine(testing::ValuesIn(test::all_backends()),
                                          testing::Values(1, 2, 3),
                                          testing::Values(1, 255, 256, 257, 1000)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Shards, ReducingBackendTest,
                         testing::Combine(testing::ValuesIn(host_backends()),
                                          testing::Values(1, 2, 3),
                                          testing::Values(1, 255, 256, 257, 1000)),
                         name_of);

TEST(ShardsTest, are_even_shares_of_whole_blocks) {
  EXPECT_EQ(even_shards(1000, 2), (std::vector<std::size_t>{0, 512, 1000}));
  EXPECT_EQ(even_shards(14336, 8)[1], 1792U);
  EXPECT_EQ(even_shards(1, 3), (std::vector<std::size_t>{0, 0, 0, 1}));
  EXPECT_EQ(even_shards(0, 2), (std::vector<std::size_t>{0, 0, 0}));
}

TEST(ShardedBackendErrorsTest, a_bad_value_of_another_member_is_named) {
  test::Sharded sharded(2, [] { return make_cpu_backend(1); });
  Matrix<float> values = test::normal_matrix(600, 4, 1);
  values.row(513)[2] = std::numeric_limits<float>::quiet_NaN();
  const auto points = sharded.backend().make_points();
  try {
    sharded.backend().load(*points, sharded.put(values.view()), false);
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "[member 1] rows from 256 on: row 257, column 2 is nan");
  }
}

TEST(ShardedBackendErrorsTest, sums_that_cannot_be_added_up_name_the_member) {
  test::Sharded sharded(
      3, [] { return make_cpu_backend(1); }, true);
  const Matrix<float> values = test::normal_matrix(600, 4, 1);
  const auto points = sharded.backend().make_points();
  sharded.backend().load(*points, sharded.put(values.view()), false);
  sharded.reducer(2).fails = true;
  const auto sums = test::empty_sums(sharded.backend(), 3, 4, 20);
  try {
    sharded.backend().update_sums(*points, {}, {}, spread_labels(600, 3, 1), *sums);
    FAIL() << "accepted";
  } catch (const CommError& error) {
    EXPECT_STREQ(error.what(), "[member 2] no peer");
  }
}

TEST(ShardedBackendErrorsTest, rows_of_the_leader_alone_are_refused) {
  test::Sharded sharded(2, [] { return make_cpu_backend(1); });
  const Matrix<float> values = test::normal_matrix(10, 4, 1);
  const auto points = sharded.backend().make_points();
  EXPECT_THROW(sharded.backend().load(*points, values.view(), false), InternalError);
}

}  // namespace
}  // namespace moefy
