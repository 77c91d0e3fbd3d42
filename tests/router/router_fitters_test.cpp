#include "moefy/router/router_fitter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "mlp_router.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/core/error.hpp"
#include "moefy/router/ridge_router.hpp"
#include "moefy/router/router_metrics.hpp"
#include "support/fixed_inputs.hpp"

namespace moefy {
namespace {

using test::FixedInputs;
using test::identity;
using test::matrix_of;
using test::plain_layer;
using test::random_matrix;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

/// A layer, a partition of it and recorded inputs.
struct Scene {
  Scene(FfnLayer layer_in, std::vector<std::int32_t> label, Matrix<float> values)
      : layer(std::move(layer_in)), inputs(std::move(values)) {
    const auto experts =
        static_cast<std::size_t>(*std::max_element(label.begin(), label.end()) + 1);
    const auto shared = static_cast<std::size_t>(std::count(label.begin(), label.end(), -1) > 0);
    partition = Partition::from_labels(std::move(label), experts, shared);
    on_cpu.emplace(layer, inputs, 1 << 20, 2);
    tokens = &**on_cpu;
  }

  RouterWeights fit(const RouterFitter& fitter) {
    return fitter.fit({layer, partition, config, tokens, {}});
  }

  std::map<std::string, double> measure(const RouterWeights& router, std::int64_t top_k) {
    const auto figures = measure_router(*tokens, partition, router, top_k, 0);
    EXPECT_TRUE(std::ranges::is_sorted(figures));
    return {figures.begin(), figures.end()};
  }

  FfnLayer layer;
  FixedInputs inputs;
  Partition partition;
  RouterConfig config;
  std::optional<test::TokensOnCpu> on_cpu;
  CalibrationTokens* tokens = nullptr;
};

/// Scores of a router, computed on a CPU.
Matrix<float> scores_of(const RouterWeights& router, const Matrix<float>& inputs) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  const std::unique_ptr<BackendMatrix> rows = test::on_backend(backend->algebra(), inputs);
  const std::unique_ptr<BackendMatrix> scores = backend->algebra().make_matrix();
  RouterOnBackend(router, backend->algebra()).scores(*rows, *scores);
  const auto values = test::read(scores).values();
  return matrix_of<float>(scores->rows(), scores->cols(), {values.begin(), values.end()});
}

/// Rows (1, 0), (2, 0) and (0, 1), (0, 3), ReLU, one token (1, 2): hidden 1 2 2 6.
Scene two_experts() {
  return {
      plain_layer(matrix_of<float>(4, 2, {1, 0, 2, 0, 0, 1, 0, 3}), random_matrix(4, 2, 1), "relu"),
      {0, 0, 1, 1},
      matrix_of<float>(1, 2, {1, 2})};
}

TEST(RouterFitterTest, mean_gate_has_the_mean_length_of_the_rows) {
  Scene scene(
      plain_layer(matrix_of<float>(4, 2, {3, 4, 6, 8, 0, 2, 0, 1}), random_matrix(4, 2, 1), "relu"),
      {0, 0, 1, 1}, matrix_of<float>(1, 2, {1, 2}));
  const RouterWeights router = scene.fit(*make_mean_gate_fitter());
  EXPECT_THAT(router.weight.values(), Pointwise(FloatNear(1e-6F), {2.7F, 3.6F, 0.0F, 4.5F}));
}

TEST(RouterFitterTest, euclidean_centroids_are_means_of_unit_rows) {
  Scene scene(
      plain_layer(matrix_of<float>(4, 2, {3, 4, 6, 0, 0, 2, 0, 1}), random_matrix(4, 2, 1), "relu"),
      {0, 0, 1, 1}, matrix_of<float>(1, 2, {1, 2}));
  scene.config.similarity = "euclidean";
  const RouterWeights router = scene.fit(*make_centroid_fitter());
  EXPECT_EQ(router.kind, kEuclideanCentroid);
  EXPECT_THAT(router.weight.values(), Pointwise(FloatNear(1e-6F), {0.8F, 0.4F, 0.0F, 1.0F}));
}

TEST(RouterFitterTest, the_nearest_centroid_need_not_have_the_largest_cosine) {
  RouterWeights router;
  router.weight = matrix_of<float>(2, 2, {0.5F, 0.5F, 21.0F / 29, 20.0F / 29});
  const Matrix<float> inputs = matrix_of<float>(2, 2, {7, 0, 0, 0});
  Matrix<float> scores = scores_of(router, inputs);
  EXPECT_LT(scores.row(0)[0], scores.row(0)[1]);

  router.kind = kEuclideanCentroid;
  scores = scores_of(router, inputs);
  // One less the squared distances 0.5, 0.551724; of a zero input 0.5 and 1 count as from the
  // origin.
  EXPECT_THAT(scores.values(), Pointwise(FloatNear(1e-6F), {0.5F, 0.448276F, -0.5F, -1.0F}));
}

TEST(RouterFitterTest, zero_and_random) {
  Scene scene = two_experts();
  EXPECT_THAT(scene.fit(*make_zero_fitter()).weight.values(), ElementsAre(0, 0, 0, 0));
  Scene wide(plain_layer(random_matrix(8, 500, 1), random_matrix(8, 500, 2), "relu"),
             {0, 0, 1, 1, 2, 2, 3, 3}, random_matrix(2, 500, 3));
  const RouterWeights router = wide.fit(*make_random_fitter());
  EXPECT_NEAR(spread_of_rows(router.weight), 0.02 * std::sqrt(500.0), 0.02);
  EXPECT_TRUE(
      std::ranges::equal(router.weight.values(), wide.fit(*make_random_fitter()).weight.values()));
  wide.config.seed = 1;
  EXPECT_FALSE(
      std::ranges::equal(router.weight.values(), wide.fit(*make_random_fitter()).weight.values()));
}

TEST(RouterMetricsTest, captured_mass_of_a_hand_computed_token) {
  Scene scene = two_experts();
  RouterWeights router;
  router.weight = matrix_of<float>(2, 2, {1, 0, 0, 1});
  const auto second = scene.measure(router, 1);
  EXPECT_NEAR(second.at("router_captured_mass"), 8.0 / 11, 1e-6);
  EXPECT_NEAR(second.at("router_captured_mass_oracle"), 8.0 / 11, 1e-6);
  EXPECT_EQ(second.at("router_recall"), 1);
  router.weight = matrix_of<float>(2, 2, {0, 1, 1, 0});
  const auto first = scene.measure(router, 1);
  EXPECT_NEAR(first.at("router_captured_mass"), 3.0 / 11, 1e-6);
  EXPECT_EQ(first.at("router_recall"), 0);
}

TEST(RouterMetricsTest, energy_and_error_of_a_hand_computed_token) {
  // Outputs: shared (1, 0), expert 0 (0, 2), expert 1 (3, 0); top-1 keeps expert 0.
  Scene scene(plain_layer(identity(3), matrix_of<float>(3, 3, {1, 0, 0, 0, 2, 0, 3, 0, 0}), "relu"),
              {-1, 0, 1}, matrix_of<float>(1, 3, {1, 1, 1}));
  RouterWeights router;
  router.weight = matrix_of<float>(2, 3, {1, 0, 0, 0, 0, 0});
  const auto found = scene.measure(router, 1);
  EXPECT_NEAR(found.at("router_kept_energy"), 4.0 / 13, 1e-6);
  EXPECT_NEAR(found.at("router_kept_energy_oracle"), 9.0 / 13, 1e-6);
  EXPECT_NEAR(found.at("router_output_error"), 9.0 / 20, 1e-6);
  EXPECT_NEAR(found.at("router_output_error_oracle"), 4.0 / 20, 1e-6);
}

TEST(RouterMetricsTest, all_experts_on_lose_nothing) {
  Scene scene(plain_layer(random_matrix(12, 5, 1), random_matrix(12, 5, 2), "gelu"),
              {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}, random_matrix(50, 5, 3));
  RouterWeights router;
  router.weight = random_matrix(3, 5, 4);
  const auto found = scene.measure(router, 3);
  EXPECT_NEAR(found.at("router_captured_mass"), 1, 1e-6);
  EXPECT_EQ(found.at("router_recall"), 1);
  EXPECT_NEAR(found.at("router_kept_energy"), 1, 1e-6);
  EXPECT_EQ(found.at("router_output_error"), 0);
  const auto two = scene.measure(router, 2);
  EXPECT_LE(two.at("router_captured_mass"), two.at("router_captured_mass_oracle"));
  EXPECT_LE(two.at("router_kept_energy"), two.at("router_kept_energy_oracle"));
  EXPECT_NEAR(two.at("router_captured_mass_random"), 2.0 / 3, 0.05);
}

TEST(RidgeFitterTest, the_score_target_is_the_sum_of_magnitudes) {
  Scene scene(plain_layer(identity(2), matrix_of<float>(2, 2, {1, 0, 0, 2}), "relu"), {0, 1},
              identity(2));
  scene.config.target = "score";
  // Gram = I, ridge 1: half of what was asked for; the down rows play no part.
  EXPECT_THAT(scene.fit(*make_ridge_fitter()).weight.values(),
              Pointwise(FloatNear(1e-6F), {0.5F, 0.0F, 0.0F, 0.5F}));
}

/// Identity up rows, down rows of length 1 and 2, ReLU, the basis vectors as tokens: norms (1, 0)
/// and (0, 2). Gram = I, so a ridge of 1 makes a router of half the targets, turned by a transpose.
std::vector<float> fitted_to_two_norms(const std::string& target) {
  Scene scene(plain_layer(identity(2), matrix_of<float>(2, 2, {1, 0, 0, 2}), "relu"), {0, 1},
              identity(2));
  scene.config.target = target;
  const RouterWeights router = scene.fit(*make_ridge_fitter());
  return {router.weight.values().begin(), router.weight.values().end()};
}

TEST(RidgeFitterTest, the_energy_target_is_the_squared_norm) {
  EXPECT_THAT(fitted_to_two_norms("energy"), Pointwise(FloatNear(1e-6F), {0.5F, 0.0F, 0.0F, 2.0F}));
}

TEST(RidgeFitterTest, the_standardized_target_has_mean_zero_and_deviation_one) {
  // Norms 1, 0 of expert 0 and 0, 2 of expert 1: means 1/2 and 1, deviations 1/2 and 1.
  EXPECT_THAT(fitted_to_two_norms("standardized"),
              Pointwise(FloatNear(1e-6F), {0.5F, -0.5F, -0.5F, 0.5F}));
}

TEST(RidgeFitterTest, an_expert_that_is_always_the_same_has_the_standardized_target_zero) {
  Scene scene(plain_layer(matrix_of<float>(2, 2, {1, 1, 0, 1}), identity(2), "relu"), {0, 1},
              identity(2));
  scene.config.target = "standardized";
  EXPECT_THAT(scene.fit(*make_ridge_fitter()).weight.values(),
              Pointwise(FloatNear(1e-6F), {0.0F, 0.0F, -0.5F, 0.5F}));
}

TEST(RidgeFitterTest, the_selection_bias_is_what_the_means_leave) {
  Scene scene(plain_layer(identity(2), matrix_of<float>(2, 2, {1, 0, 0, 2}), "relu"), {0, 1},
              identity(2));
  scene.config.selection_bias = true;
  const RouterWeights router = scene.fit(*make_ridge_fitter());
  // Less their means, the inputs are ±(1/2, -1/2): Gram (1/2, -1/2; -1/2, 1/2), with the ridge
  // (1, -1/2; -1/2, 1); targets ±1/2 and ∓1 have right-hand sides (1/2, -1/2) and (-1, 1).
  EXPECT_THAT(router.weight.values(),
              Pointwise(FloatNear(1e-6F), {1.0F / 3, -1.0F / 3, -2.0F / 3, 2.0F / 3}));
  EXPECT_THAT(router.bias, Pointwise(FloatNear(1e-6F), {0.5F, 1.0F}));
  // The gate's scale is chosen by what the gate computes: logits ±1/3 and ±2/3.
  EXPECT_NEAR(logit_spread(router, *scene.tokens), std::sqrt((1.0 / 9 + 4.0 / 9) / 2), 1e-6);
}

TEST(RidgeFitterTest, with_a_selection_bias_mean_scores_are_mean_targets) {
  Matrix<float> inputs = random_matrix(300, 5, 3);
  for (float& value : inputs.values()) value += 3;
  Scene scene(plain_layer(random_matrix(12, 5, 1), random_matrix(12, 5, 2), "relu"),
              {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}, std::move(inputs));
  scene.config.selection_bias = true;
  scene.config.target = "score";
  const RouterWeights router = scene.fit(*make_ridge_fitter());
  LinearAlgebra& algebra = scene.on_cpu->algebra();
  const std::unique_ptr<ExpertLists> lists = algebra.make_lists(members_of(scene.partition), {});
  const RouterOnBackend on_backend(router, algebra);
  const auto scores = algebra.make_matrix(), targets = algebra.make_matrix();
  scene.tokens->for_each_block([&](const CalibrationTokens::Block& block) {
    ASSERT_EQ(block.size(), 300);
    on_backend.scores(block.inputs, *scores);
    algebra.expert_scores(block.hidden, *lists, kOracleScore, *targets);
  });
  for (std::size_t e = 0; e < 3; ++e) {
    double score = 0, target = 0;
    for (std::size_t t = 0; t < 300; ++t) {
      score += test::read(scores).row(t)[e];
      target += test::read(targets).row(t)[e];
    }
    EXPECT_NEAR(score / target, 1, 1e-5);
  }
}

TEST(RidgeFitterTest, the_topk_target_marks_the_largest_norms) {
  // Norms of the three tokens: 1 2 1, 3 1 0, 0 0 1; of two equal ones the lower expert counts.
  Scene scene(plain_layer(matrix_of<float>(3, 3, {1, 3, 0, 2, 1, 0, 1, 0, 1}), identity(3), "relu"),
              {0, 1, 2}, identity(3));
  scene.config.target = "topk";
  scene.config.top_k = 1;
  EXPECT_THAT(scene.fit(*make_ridge_fitter()).weight.values(),
              Pointwise(FloatNear(1e-6F), {0.0F, 0.5F, 0.0F, 0.5F, 0.0F, 0.0F, 0.0F, 0.0F, 0.5F}));
  scene.config.top_k = 2;
  EXPECT_THAT(scene.fit(*make_ridge_fitter()).weight.values(),
              Pointwise(FloatNear(1e-6F), {0.5F, 0.5F, 0.5F, 0.5F, 0.5F, 0.0F, 0.0F, 0.0F, 0.5F}));
}

TEST(RidgeFitterTest, the_topk_target_needs_a_number) {
  EXPECT_THROW(fitted_to_two_norms("topk"), UsageError);
}

TEST(RidgeFitterTest, learns_more_than_the_centroids_know) {
  Scene scene(plain_layer(random_matrix(32, 8, 1), random_matrix(32, 8, 2), "silu"),
              {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7,
               0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7},
              random_matrix(2000, 8, 3));
  const auto ridge = scene.measure(scene.fit(*make_ridge_fitter()), 2);
  const auto centroid = scene.measure(scene.fit(*make_centroid_fitter()), 2);
  EXPECT_GT(ridge.at("router_kept_energy"), centroid.at("router_kept_energy"));
}

double loss_in_double(const Matrix<double>& a, const Matrix<double>& b, const Matrix<float>& x,
                      const Matrix<float>& y, RouterLoss loss) {
  double sum = 0;
  for (std::size_t t = 0; t < x.rows(); ++t) {
    std::vector<double> inner(a.rows()), z(a.rows(), 0.0);
    for (std::size_t e = 0; e < a.rows(); ++e) {
      double dot = 0;
      for (std::size_t j = 0; j < a.cols(); ++j) dot += a.row(e)[j] * x.row(t)[j];
      inner[e] = std::tanh(dot);
    }
    double total = 0;
    for (std::size_t e = 0; e < a.rows(); ++e) {
      for (std::size_t f = 0; f < a.rows(); ++f) z[e] += b.row(e)[f] * inner[f];
      total += std::exp(z[e]);
    }
    for (std::size_t e = 0; e < a.rows(); ++e) {
      const double target = y.row(t)[e];
      if (loss == RouterLoss::binary)
        sum +=
            (std::log1p(std::exp(z[e])) - z[e] * target) / static_cast<double>(x.rows() * a.rows());
      else
        sum += target * (std::log(target) - z[e] + std::log(total)) / static_cast<double>(x.rows());
    }
  }
  return sum;
}

TEST(MlpRouterTest, gradient_agrees_with_central_differences) {
  constexpr std::size_t kExperts = 5;
  constexpr std::size_t kWidth = 7;
  Matrix<float> inputs = random_matrix(3, kWidth, 1);
  Matrix<float> target(3, kExperts);
  for (std::size_t t = 0; t < 3; ++t) {
    double norm = 0;
    for (const float value : inputs.row(t)) norm += double{value} * value;
    for (float& value : inputs.row(t)) value /= static_cast<float>(std::sqrt(norm));
    for (std::size_t e = 0; e < kExperts; ++e)
      target.row(t)[e] = static_cast<float>(e + t + 1) / static_cast<float>(15 + 5 * t);
  }
  RouterWeights router;
  router.weight = random_matrix(kExperts, kWidth, 2);
  router.output = random_matrix(kExperts, kExperts, 3);
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  RouterGradients gradients(backend->algebra());
  for (const RouterLoss loss : {RouterLoss::binary, RouterLoss::softmax}) {
    const RouterGradient gradient = gradients.compute(router, inputs.view(), target.view(), loss);
    Matrix<double> a(kExperts, kWidth), b(kExperts, kExperts);
    std::ranges::copy(router.weight.values(), a.values().begin());
    std::ranges::copy(router.output.values(), b.values().begin());
    EXPECT_NEAR(gradient.loss, loss_in_double(a, b, inputs, target, loss), 1e-6);
    const auto check = [&](Matrix<double>& values, MatrixView<const float> found) {
      constexpr double kStep = 1e-4;
      double largest = 0;
      for (const float value : found.values()) largest = std::max<double>(largest, std::abs(value));
      for (std::size_t i = 0; i < values.values().size(); ++i) {
        double& value = values.values()[i];
        const double there = value;
        value = there + kStep;
        const double above = loss_in_double(a, b, inputs, target, loss);
        value = there - kStep;
        const double below = loss_in_double(a, b, inputs, target, loss);
        value = there;
        // The training computes in fp32.
        EXPECT_NEAR(found.values()[i], (above - below) / (2 * kStep), 1e-5 * largest);
      }
    };
    check(a, gradient.weight);
    check(b, gradient.output);
  }
}

TEST(MlpRouterTest, begins_as_squashed_centroids) {
  Scene scene = two_experts();
  scene.config.epochs = 1;
  RouterWeights router = scene.fit(*make_mlp_fitter());
  // One token serves for training and validation, and the start captures all that can be.
  EXPECT_THAT(scores_of(router, matrix_of<float>(1, 2, {1, 2})).values(),
              Pointwise(FloatNear(1e-5F), {0.419606F, 0.713574F}));
}

/// Tokens are basis vectors with a little noise, so that each wakes one expert.
Scene basis_vectors() {
  Matrix<float> values = random_matrix(2048, 8, 4);
  for (std::size_t t = 0; t < values.rows(); ++t) {
    for (float& value : values.row(t)) value *= 0.0005F;
    values.row(t)[t % 8] += 1;
  }
  return {
      plain_layer(identity(8), identity(8), "relu"), {0, 1, 2, 3, 4, 5, 6, 7}, std::move(values)};
}

TEST(MlpRouterTest, learns_which_expert_a_token_wakes) {
  for (const auto& make : {make_mlp_fitter, make_mlp_topk_fitter}) {
    Scene scene = basis_vectors();
    scene.config.top_k = 1;
    const RouterWeights router = scene.fit(*make());
    EXPECT_GE(scene.measure(router, 1).at("router_captured_mass"), 0.99);
  }
}

TEST(MlpRouterTest, is_never_worse_than_its_start_on_the_tokens_held_back) {
  // Labels that the inputs say nothing about: training can only lose, and the start is kept.
  Scene scene(plain_layer(random_matrix(10, 4, 1), random_matrix(10, 4, 2), "gelu"),
              {0, 1, 2, 3, 4, 0, 1, 2, 3, 4}, random_matrix(512, 4, 3));
  const auto centroid = scene.measure(scene.fit(*make_centroid_fitter()), 1);
  const auto mlp = scene.measure(scene.fit(*make_mlp_fitter()), 1);
  EXPECT_GE(mlp.at("router_captured_mass") + 1e-9, centroid.at("router_captured_mass"));
}

TEST(MlpRouterTest, softmax_target_and_seeds) {
  Scene scene(plain_layer(random_matrix(16, 6, 1), random_matrix(16, 6, 2), "silu"),
              {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, random_matrix(3000, 6, 3));
  scene.config.top_k = 2;
  scene.config.epochs = 5;
  scene.config.target = "softmax";
  const RouterWeights first = scene.fit(*make_mlp_topk_fitter());
  const RouterWeights again = scene.fit(*make_mlp_topk_fitter());
  EXPECT_TRUE(std::ranges::equal(first.weight.values(), again.weight.values()));
  const auto random = scene.measure(scene.fit(*make_random_fitter()), 2);
  EXPECT_GT(scene.measure(first, 2).at("router_recall"), random.at("router_recall"));
}

TEST(MlpRouterTest, topk_needs_a_number) {
  Scene scene = two_experts();
  EXPECT_THROW(scene.fit(*make_mlp_topk_fitter()), UsageError);
}

}  // namespace
}  // namespace moefy
