#include "moefy/router/centroid_router.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace moefy {
namespace {

Matrix<float> matrix(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  Matrix<float> result(rows, cols);
  std::ranges::copy(values, result.values().begin());
  return result;
}

TEST(CentroidRouterTest, is_the_unit_mean_of_unit_rows) {
  // Unit rows (0.6, 0.8), (0, 1) have the mean (0.3, 0.9) of length sqrt(0.9).
  const Matrix<float> rows = matrix(4, 2, {3, 4, 0, 2, -1, 0, 0, 0});
  const std::vector<std::int32_t> label = {0, 0, 1, 1};

  const RouterWeights router = fit_centroid_router(rows.view(), label, 2);

  EXPECT_EQ(router.kind, "centroid");
  EXPECT_FLOAT_EQ(router.weight.row(0)[0], 0.31622777f);
  EXPECT_FLOAT_EQ(router.weight.row(0)[1], 0.94868330f);
  EXPECT_FLOAT_EQ(router.weight.row(1)[0], -1.0f);
  EXPECT_FLOAT_EQ(router.weight.row(1)[1], 0.0f);
  EXPECT_NEAR(router.logit_std, 1.0, 1e-7);
}

TEST(CentroidRouterTest, gives_a_zero_row_where_unit_rows_cancel) {
  const Matrix<float> rows = matrix(3, 2, {2, 0, -5, 0, 0, 1});
  const std::vector<std::int32_t> label = {0, 0, 1};
  std::vector<std::int64_t> zero;

  const RouterWeights router = fit_centroid_router(rows.view(), label, 2, &zero);

  EXPECT_EQ(zero, (std::vector<std::int64_t>{0}));
  EXPECT_EQ(router.weight.row(0)[0], 0.0f);
  EXPECT_EQ(router.weight.row(0)[1], 0.0f);
  EXPECT_NEAR(router.logit_std, std::sqrt(0.5), 1e-7);
}

TEST(CentroidRouterTest, leaves_shared_neurons_out) {
  const Matrix<float> rows = matrix(3, 2, {1, 0, 0, 1, 0, -7});
  const std::vector<std::int32_t> label = {0, kSharedLabel, 1};

  const RouterWeights router = fit_centroid_router(rows.view(), label, 2);

  EXPECT_EQ(router.weight.row(0)[1], 0.0f);
  EXPECT_EQ(router.weight.row(1)[1], -1.0f);
}

}  // namespace
}  // namespace moefy
