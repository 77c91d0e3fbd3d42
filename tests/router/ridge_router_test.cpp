#include "moefy/router/ridge_router.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/fixed_inputs.hpp"

namespace moefy {
namespace {

using test::FixedInputs;

Matrix<float> matrix(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  Matrix<float> result(rows, cols);
  std::ranges::copy(values, result.values().begin());
  return result;
}

TEST(RidgeRouterTest, solves_the_normal_equations_of_the_output_norms) {
  // Two neurons, identity up, down rows of length 1 and 2, ReLU: norms are x0 and 2 x1 here.
  // Inputs (1, 0), (0, 1): Gram = I, right-hand sides (1, 0) and (0, 2); a ridge of 1 halves them.
  FfnLayer layer;
  layer.info.activation = "relu";
  layer.up = matrix(2, 2, {1, 0, 0, 1});
  layer.down = matrix(2, 2, {1, 0, 0, 2});
  const FixedInputs inputs(matrix(2, 2, {1, 0, 0, 1}));
  test::TokensOnCpu tokens(layer, inputs);

  const RouterWeights router = RidgeRouter(*tokens, 1.0).fit(*tokens, {{0}, {1}});

  EXPECT_EQ(router.kind, "ridge");
  EXPECT_NEAR(router.weight.row(0)[0], 0.5, 1e-6);
  EXPECT_NEAR(router.weight.row(0)[1], 0.0, 1e-6);
  EXPECT_NEAR(router.weight.row(1)[0], 0.0, 1e-6);
  EXPECT_NEAR(router.weight.row(1)[1], 1.0, 1e-6);
  // Scores (0.5, 0), (0, 1): root of (0.25 + 1) / 4.
  EXPECT_NEAR(logit_spread(router, *tokens), std::sqrt(1.25 / 4), 1e-6);
}

TEST(RidgeRouterTest, the_lowest_expert_wins_a_tie) {
  RouterWeights router;
  router.kind = "ridge";
  router.weight = matrix(4, 1, {1, 3, 3, 2});
  const Matrix<float> inputs = matrix(2, 1, {1, 0});
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  LinearAlgebra& algebra = backend->algebra();
  const std::unique_ptr<BackendMatrix> rows = test::on_backend(algebra, inputs);
  const std::unique_ptr<BackendMatrix> chosen = algebra.make_matrix();

  RouterOnBackend(router, algebra).choose(*rows, 2, *chosen);

  EXPECT_TRUE(std::ranges::equal(test::read(chosen).row(0), std::vector<float>{0, 1, 1, 0}));
  EXPECT_TRUE(std::ranges::equal(test::read(chosen).row(1), std::vector<float>{1, 1, 0, 0}));
}

}  // namespace
}  // namespace moefy
