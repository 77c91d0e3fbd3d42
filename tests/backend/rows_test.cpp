#include "moefy/backend/rows.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>

#include "moefy/core/random.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {
namespace {

using testing::ElementsAre;

constexpr std::size_t kParts = 16;

/// Σ x² as rows.hpp promises it, one element after another.
double squares_in_order(std::span<const float> row) {
  double part[kParts] = {};
  for (std::size_t l = 0; l < row.size(); ++l) {
    part[l % kParts] += static_cast<double>(row[l]) * static_cast<double>(row[l]);
  }
  for (std::size_t half = kParts / 2; half > 0; half /= 2) {
    for (std::size_t p = 0; p < half; ++p) part[p] += part[p + half];
  }
  return part[0];
}

std::vector<float> noise(std::size_t size, std::uint64_t seed) {
  RandomStream stream(seed, 0, RandomPurpose::random_split);
  std::vector<float> values(size);
  for (float& value : values) {
    value = static_cast<float>(stream.next_word() >> 8) * 0x1p-20F - 8.0F;
  }
  return values;
}

/// Rows in host memory that hold `values` [num_rows, dim].
std::unique_ptr<RowMatrix> rows_of(ThreadPool& threads, std::span<const float> values,
                                   std::size_t num_rows, std::size_t dim) {
  std::unique_ptr<RowMatrix> rows = make_host_rows(threads);
  rows->resize(num_rows, dim);
  rows->fill_columns(
      0, dim, [&](const RowsTarget& out) { std::copy(values.begin(), values.end(), out.data); });
  return rows;
}

TEST(SquaredNormTest, known_values) {
  EXPECT_EQ(squared_norm_of({}), 0);
  EXPECT_EQ(squared_norm_of(std::vector<float>{3, 4}), 25);
  std::vector<float> ascending(20);
  std::iota(ascending.begin(), ascending.end(), 1.0F);
  EXPECT_EQ(squared_norm_of(ascending), 2870);
}

TEST(SquaredNormTest, has_the_same_bits_whatever_the_loop) {
  for (std::size_t size = 0; size < 100; ++size) {
    const std::vector<float> row = noise(size, size);
    EXPECT_EQ(squared_norm_of(row), squares_in_order(row)) << size;
  }
}

TEST(HostRowsTest, unit_rows_are_added_in_order) {
  constexpr std::size_t kRows = 9;
  constexpr std::size_t kDim = 37;
  ThreadPool threads(1);
  const std::vector<float> values = noise(kRows * kDim, 1);
  const std::vector<std::int32_t> label{1, 0, -1, 1, 1, 0, 0, -1, 1};
  const std::unique_ptr<RowMatrix> rows = rows_of(threads, values, kRows, kDim);
  const auto row = [&](std::size_t i) { return std::span(values).subspan(i * kDim, kDim); };

  for (const bool norms_are_known : {false, true}) {
    if (norms_are_known) rows->squared_norms();
    Matrix<double> sum(2, kDim);
    std::ranges::fill(sum.values(), 0.5);
    rows->add_unit_rows(label, sum);

    for (std::size_t l = 0; l < kDim; ++l) {
      double expected[2] = {0.5, 0.5};
      for (std::size_t i = 0; i < kRows; ++i) {
        if (label[i] >= 0)
          expected[label[i]] +=
              1 / std::sqrt(squares_in_order(row(i))) * static_cast<double>(row(i)[l]);
      }
      EXPECT_EQ(sum.row(0)[l], expected[0]);
      EXPECT_EQ(sum.row(1)[l], expected[1]);
    }
  }
}

TEST(HostRowsTest, zero_rows_stay_zero) {
  ThreadPool threads(1);
  const std::unique_ptr<RowMatrix> rows = rows_of(threads, std::vector<float>{0, 0, 3, 4}, 2, 2);

  rows->keep(std::vector<std::int32_t>{0, 1}, true);

  EXPECT_THAT(rows->view().on_host().values(), ElementsAre(0, 0, 0.6F, 0.8F));
  Matrix<double> sum(1, 2);
  std::ranges::fill(sum.values(), 0.0);
  rows->add_unit_rows(std::vector<std::int32_t>{0, -1}, sum);
  EXPECT_THAT(sum.values(), ElementsAre(0, 0));
}

TEST(HostRowsTest, norms_follow_the_rows) {
  ThreadPool threads(1);
  const std::vector<float> values{3, 4, 1, 0, 0, 2};
  const std::unique_ptr<RowMatrix> rows = rows_of(threads, values, 3, 2);
  EXPECT_THAT(rows->squared_norms(), ElementsAre(25, 1, 4));

  rows->keep(std::vector<std::int32_t>{0, 1, 2}, false);
  EXPECT_THAT(rows->squared_norms(), ElementsAre(25, 1, 4));

  rows->keep(std::vector<std::int32_t>{0, 2}, false);
  EXPECT_THAT(rows->squared_norms(), ElementsAre(25, 4));

  rows->keep(std::vector<std::int32_t>{1}, true);
  EXPECT_THAT(rows->squared_norms(), ElementsAre(1));

  rows->fill_columns(1, 1, [](MatrixView<float> out) { out.data[0] = 3; });
  EXPECT_THAT(rows->squared_norms(), ElementsAre(9));

  rows->resize(1, 1);
  rows->fill_columns(0, 1, [](MatrixView<float> out) { out.data[0] = 7; });
  EXPECT_THAT(rows->squared_norms(), ElementsAre(49));
}

}  // namespace
}  // namespace moefy
