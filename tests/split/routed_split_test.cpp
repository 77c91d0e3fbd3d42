#include "moefy/split/routed_split.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"
#include "moefy/split/down_refit.hpp"
#include "support/fixed_inputs.hpp"

namespace moefy {
namespace {

using test::FixedInputs;
using test::random_matrix;

constexpr std::size_t kNeurons = 40;
constexpr std::size_t kWidth = 12;
constexpr std::size_t kTokens = kTokenBlock + 200;

/// A random gated layer, its inputs, and everything that works on them.
struct Scene {
  explicit Scene(std::size_t num_threads = 2, std::size_t cache = std::size_t{1} << 30)
      : inputs(random_matrix(kTokens, kWidth, 9)),
        backend(make_cpu_backend(num_threads)),
        algebra(backend->algebra()),
        workspace(*backend) {
    layer.info.activation = "silu";
    layer.info.num_neurons = kNeurons;
    layer.info.hidden_size = kWidth;
    for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down})
      layer.info.tensors.push_back({role, "t", role != FfnRole::down, 0, 0, DType::f32});
    layer.gate = random_matrix(kNeurons, kWidth, 1);
    layer.up = random_matrix(kNeurons, kWidth, 2);
    layer.down = random_matrix(kNeurons, kWidth, 3);
    split.experts = 6;
    split.shared = 2;
    weight.assign(kTokens, 1.0F);
    for (std::size_t t = 0; t < kTokens; t += 3) weight[t] = 0.25F;
    ffn.emplace(layer, algebra);
    tokens.emplace(*ffn, inputs, cache);
  }

  RoutedSplit run(int rounds = 4) {
    return split_by_routing(*tokens, weight, split, {2, rounds, 1.0}, workspace, {});
  }

  double dense_square() {
    double sum = 0;
    const std::unique_ptr<BackendMatrix> output = algebra.make_matrix();
    tokens->for_each_block([&](const CalibrationTokens::Block& block) {
      algebra.multiply(block.hidden, ffn->down(), *output);
      const std::vector<double> squares = algebra.squared_row_norms(*output);
      for (std::size_t t = 0; t < squares.size(); ++t)
        sum += static_cast<double>(weight[block.first + t]) * squares[t];
    });
    return sum;
  }

  FfnLayer layer;
  FixedInputs inputs;
  std::unique_ptr<Backend> backend;
  LinearAlgebra& algebra;
  SplitWorkspace workspace;
  SplitConfig split;
  std::vector<float> weight;
  std::optional<FfnOnBackend> ffn;
  std::optional<CalibrationTokens> tokens;
};

TEST(RoutedSplitTest, every_list_has_its_share_of_the_neurons) {
  Scene scene;
  const RoutedSplit found = scene.run();

  std::vector<std::size_t> sizes(scene.split.experts + 1, 0);
  for (const std::int32_t label : found.label)
    ++sizes[label == kSharedLabel ? sizes.size() - 1 : static_cast<std::size_t>(label)];
  EXPECT_EQ(sizes, (std::vector<std::size_t>{5, 5, 5, 5, 5, 5, 10}));
  EXPECT_EQ(found.router.weight.rows(), 6u);
  EXPECT_GT(found.router.logit_std, 0);
}

TEST(RoutedSplitTest, a_reassignment_never_loses_more_for_the_routing_it_was_made_for) {
  Scene scene;
  const RoutedSplit found = scene.run();

  ASSERT_GE(found.lost_energy.size(), 4u);
  for (std::size_t i = 0; i + 1 < found.lost_energy.size(); i += 2)
    EXPECT_LE(found.lost_energy[i + 1], found.lost_energy[i] * (1 + 1e-9));
  // The refinement as a whole pays off.
  EXPECT_LT(found.lost_energy.back(), 0.9 * found.lost_energy.front());
}

TEST(RoutedSplitTest, results_depend_neither_on_threads_nor_on_what_is_kept_in_memory) {
  Scene one(1), three(3), without_cache(2, 0);
  const RoutedSplit first = one.run();

  for (Scene* scene : {&three, &without_cache}) {
    const RoutedSplit other = scene->run();
    EXPECT_EQ(first.label, other.label);
    EXPECT_TRUE(std::ranges::equal(first.router.weight.values(), other.router.weight.values()));
    EXPECT_EQ(first.lost_energy, other.lost_energy);
  }
}

TEST(RoutedSplitTest, no_tokens_and_infinite_activations_are_input_errors) {
  Scene scene;
  const FixedInputs none(Matrix<float>(0, kWidth));
  CalibrationTokens empty(*scene.ffn, none, 0);
  EXPECT_THROW(split_by_routing(empty, {}, scene.split, {2, 1, 1.0}, scene.workspace, {}),
               InputError);
  for (float& value : scene.layer.up.values()) value = 1e30F;
  EXPECT_THROW(scene.run(), InputError);
}

TEST(RoutedSplitTest, stops_when_asked) {
  Scene scene;
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(split_by_routing(*scene.tokens, scene.weight, scene.split, {2, 4, 1.0},
                                scene.workspace, stop.get_token()),
               Interrupted);
}

TEST(DownRefitTest, lowers_the_error_by_what_it_says) {
  Scene scene;
  const RoutedSplit found = scene.run();
  const double dense = scene.dense_square();

  const DownRefit refit =
      refit_down(*scene.tokens, scene.weight, dense, found.router, found.label, 2, 0.1);

  EXPECT_LT(refit.error_after, refit.error_before);
  EXPECT_NEAR(routed_error(*scene.tokens, scene.weight, dense, found.router, found.label, 2),
              refit.error_before, 1e-9);
  // The error of the new rows, computed directly.
  double error = 0;
  LinearAlgebra& algebra = scene.algebra;
  const RouterOnBackend router(found.router, algebra);
  const std::unique_ptr<BackendMatrix> down = test::on_backend(algebra, refit.down);
  const auto chosen = algebra.make_matrix(), kept = algebra.make_matrix();
  const auto wanted = algebra.make_matrix(), made = algebra.make_matrix();
  scene.tokens->for_each_block([&](const CalibrationTokens::Block& block) {
    router.choose(block.inputs, 2, *chosen);
    algebra.part_hidden(block.hidden, *chosen, found.label, {}, *kept, nullptr);
    algebra.multiply(block.hidden, scene.ffn->down(), *wanted);
    algebra.multiply(*kept, *down, *made);
    for (std::size_t t = 0; t < block.size(); ++t)
      for (std::size_t j = 0; j < kWidth; ++j)
        error +=
            static_cast<double>(scene.weight[block.first + t]) *
            std::pow(static_cast<double>(test::read(wanted).row(t)[j] - test::read(made).row(t)[j]),
                     2);
  });
  EXPECT_NEAR(error / dense, refit.error_after, 1e-5);
}

TEST(DownRefitTest, changes_nothing_where_every_expert_runs) {
  Scene scene;
  const RoutedSplit found = scene.run(1);

  const DownRefit refit = refit_down(*scene.tokens, scene.weight, scene.dense_square(),
                                     found.router, found.label, 6, 1.0);

  EXPECT_EQ(refit.error_before, 0);
  EXPECT_TRUE(std::ranges::equal(refit.down.values(), scene.layer.down.values()));
}

TEST(DownRefitTest, is_rounded_to_the_dtype_of_the_file) {
  Scene scene;
  const RoutedSplit found = scene.run(1);
  scene.layer.info.tensors[2].dtype = DType::bf16;

  const DownRefit refit = refit_down(*scene.tokens, scene.weight, scene.dense_square(),
                                     found.router, found.label, 2, 1.0);

  for (const float value : refit.down.values())
    ASSERT_EQ(value, bfloat16_to_float(float_to_bfloat16(value)));
}

}  // namespace
}  // namespace moefy
