#include "moefy/backend/linear_algebra.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy {
namespace {

Matrix<float> random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix<float> matrix(rows, cols);
  RandomStream stream(seed, 0, RandomPurpose::verification);
  for (float& value : matrix.values()) value = stream.next_normal();
  return matrix;
}

Matrix<double> zeros(std::size_t rows, std::size_t cols) {
  Matrix<double> matrix(rows, cols);
  std::ranges::fill(matrix.values(), 0.0);
  return matrix;
}

TEST(LinearAlgebraTest, a_tile_is_what_the_pool_computes_of_it) {
  const Matrix<float> a = random_matrix(300, 7, 1);
  const Matrix<float> b = random_matrix(7, 5, 3);
  ThreadPool threads(2);
  Matrix<float> whole(300, 5), tile(44, 5);
  multiply(a.view(), b.view(), whole.view(), threads);

  multiply_tile({a.row(256).data(), 44, 7}, b.view(), tile.view());

  EXPECT_TRUE(std::ranges::equal(tile.values(), whole.values().subspan(256 * 5)));
  EXPECT_THROW(multiply_tile(a.view(), b.view(), whole.view()), InternalError);  // 300 rows
}

TEST(LinearAlgebraTest, products_agree_with_plain_loops) {
  // More rows than one tile, and not a multiple of it.
  const Matrix<float> a = random_matrix(300, 7, 1);
  const Matrix<float> b = random_matrix(5, 7, 2);
  const Matrix<float> c = random_matrix(7, 5, 3);
  ThreadPool threads(2);
  Matrix<float> straight(300, 5), turned(300, 5);

  multiply(a.view(), c.view(), straight.view(), threads);
  multiply_transposed(a.view(), b.view(), turned.view(), threads);

  for (std::size_t i = 0; i < 300; ++i)
    for (std::size_t j = 0; j < 5; ++j) {
      double with_c = 0, with_b = 0;
      for (std::size_t k = 0; k < 7; ++k) {
        with_c += static_cast<double>(a.row(i)[k]) * static_cast<double>(c.row(k)[j]);
        with_b += static_cast<double>(a.row(i)[k]) * static_cast<double>(b.row(j)[k]);
      }
      ASSERT_NEAR(straight.row(i)[j], with_c, 1e-5);
      ASSERT_NEAR(turned.row(i)[j], with_b, 1e-5);
    }
}

TEST(LinearAlgebraTest, block_sums_do_not_depend_on_threads) {
  const Matrix<float> a = random_matrix(40, 600, 4);
  const Matrix<float> b = random_matrix(40, 9, 5);
  ThreadPool one(1), three(3);
  Matrix<double> first = zeros(600, 9), second = zeros(600, 9);
  Matrix<double> first_gram = zeros(600, 600), second_gram = zeros(600, 600);

  for (int block = 0; block < 2; ++block) {
    add_block_product(a.view(), b.view(), first, one);
    add_block_product(a.view(), b.view(), second, three);
    add_block_gram(a.view(), first_gram, one);
    add_block_gram(a.view(), second_gram, three);
  }

  EXPECT_TRUE(std::ranges::equal(first.values(), second.values()));
  EXPECT_TRUE(std::ranges::equal(first_gram.values(), second_gram.values()));
  double expected = 0;
  for (std::size_t t = 0; t < 40; ++t)
    expected += 2.0 * static_cast<double>(a.row(t)[599]) * static_cast<double>(a.row(t)[3]);
  EXPECT_NEAR(first_gram.row(599)[3], expected, 1e-4);
}

TEST(LinearAlgebraTest, cholesky_solves_a_system) {
  // [[4, 2], [2, 3]] · (1, -2) = (0, -4)
  Matrix<double> matrix = zeros(2, 2);
  matrix.row(0)[0] = 4;
  matrix.row(1)[0] = 2;  // only the lower triangle is read
  matrix.row(1)[1] = 3;
  Matrix<double> rhs = zeros(2, 1);
  rhs.row(1)[0] = -4;

  CholeskyFactor(std::move(matrix)).solve(rhs);

  EXPECT_NEAR(rhs.row(0)[0], 1, 1e-12);
  EXPECT_NEAR(rhs.row(1)[0], -2, 1e-12);
}

TEST(LinearAlgebraTest, ridge_is_raised_until_the_system_can_be_solved) {
  // Mean diagonal 1; the eigenvalues are 3 and -1, so a ridge above 1 is needed.
  Matrix<double> matrix = zeros(2, 2);
  matrix.row(0)[0] = matrix.row(1)[1] = 1;
  matrix.row(1)[0] = 2;
  double used = 0;

  ridge_factor(matrix, 0.5, &used);

  EXPECT_DOUBLE_EQ(used, 5);
}

TEST(LinearAlgebraTest, what_cannot_be_solved_is_an_input_error) {
  Matrix<double> negative = zeros(1, 1);
  negative.row(0)[0] = -1;
  EXPECT_THROW(ridge_factor(negative, 0, nullptr), InputError);
  Matrix<double> nan = zeros(1, 1);
  nan.row(0)[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(CholeskyFactor{std::move(nan)}, InputError);
}

}  // namespace
}  // namespace moefy
