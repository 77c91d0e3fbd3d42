#include "moefy/model/ffn_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "moefy/core/error.hpp"
#include "moefy/model/calibration_tokens.hpp"
#include "support/fixed_inputs.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy::test {
namespace {

Matrix<float> matrix(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  Matrix<float> result(rows, cols);
  std::ranges::copy(values, result.values().begin());
  return result;
}

/// Four neurons of width 2, gated by ReLU: on (2, 1) they are 6, 4, 3 and 2.
FfnLayer small_layer() {
  FfnLayer layer;
  layer.info.activation = "relu";
  layer.gate = matrix(4, 2, {1, 0, 0, 1, 1, 1, 1, -1});
  layer.up = matrix(4, 2, {1, 1, 2, 0, 0, 1, 1, 0});
  layer.down = matrix(4, 2, {1, 0, 0, 1, 1, -1, 2, 1});
  return layer;
}

TEST(FfnLayerTest, down_rows_on_a_backend_are_renewed) {
  FfnLayer layer = small_layer();
  const std::unique_ptr<Backend> backend = make_reference_backend(1);
  FfnOnBackend ffn(layer, backend->algebra());

  layer.down = matrix(4, 2, {5, 6, 0, 1, 1, -1, 2, 1});
  ffn.renew_down();

  EXPECT_TRUE(std::ranges::equal(ffn.down().on_host().row(0), std::vector<float>{5, 6}));
}

TEST(FfnLayerTest, an_unknown_activation_is_an_input_error) {
  FfnLayer layer = small_layer();
  layer.info.activation = "reluu";
  const std::unique_ptr<Backend> backend = make_reference_backend(1);
  EXPECT_THROW(FfnOnBackend(layer, backend->algebra()), InputError);
}

TEST(FfnLayerTest, loading_turns_neurons_into_rows_and_makes_the_fingerprint) {
  const TempDir dir;
  write_checkpoint(tiny_model("gpt2", {}), dir / "model");
  const Checkpoint checkpoint = Checkpoint::open(dir / "model");
  const LayerInfo info = Architecture::detect(checkpoint).layers(checkpoint)[1];

  const FfnLayer layer = load_ffn_layer(checkpoint, info);

  EXPECT_EQ(layer.gate.rows(), 0u);
  EXPECT_EQ(layer.num_neurons(), 24u);
  EXPECT_EQ(layer.up_bias.size(), 24u);
  EXPECT_EQ(layer.down_bias.size(), 16u);
  EXPECT_EQ(layer.fingerprint, layer_fingerprint(checkpoint, info));
  // c_fc is stored [hidden, neurons].
  const TensorInfo& stored = checkpoint.at(info.find(FfnRole::up)->tensor);
  std::vector<float> values(16 * 24);
  checkpoint.read(stored, 0, std::as_writable_bytes(std::span(values)));
  EXPECT_EQ(layer.up.row(5)[3], values[3 * 24 + 5]);
}

TEST(CalibrationTokensTest, inputs_come_alone_in_the_same_blocks) {
  const FfnLayer layer = small_layer();
  Matrix<float> values(kTokenBlock + 3, 2);
  for (std::size_t i = 0; i < values.values().size(); ++i)
    values.values()[i] = static_cast<float>(i % 7);
  const FixedInputs inputs(std::move(values));
  TokensOnCpu tokens(layer, inputs);
  std::vector<std::size_t> firsts;
  std::vector<float> found;

  tokens->for_each_inputs([&](const CalibrationTokens::Inputs& block) {
    firsts.push_back(block.first);
    const auto part = block.inputs.on_host().values();
    found.insert(found.end(), part.begin(), part.end());
  });

  EXPECT_EQ(firsts, (std::vector<std::size_t>{0, kTokenBlock}));
  ASSERT_EQ(found.size(), 2 * (kTokenBlock + 3));
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], static_cast<float>(i % 7));
}

TEST(CalibrationTokensTest, blocks_are_the_same_kept_or_computed_again) {
  const FfnLayer layer = small_layer();
  Matrix<float> values(kTokenBlock + 3, 2);
  for (std::size_t i = 0; i < values.values().size(); ++i)
    values.values()[i] = static_cast<float>(i % 7) - 3;
  const FixedInputs inputs(std::move(values));
  TokensOnCpu kept(layer, inputs, 1 << 20, 2);
  TokensOnCpu again(layer, inputs, 0, 2);

  for (int pass = 0; pass < 2; ++pass) {
    std::vector<std::size_t> firsts;
    std::vector<float> first_way, second_way;
    kept->for_each_block([&](const CalibrationTokens::Block& block) {
      firsts.push_back(block.first);
      const auto hidden = block.hidden.on_host().values();
      first_way.insert(first_way.end(), hidden.begin(), hidden.end());
    });
    again->for_each_block([&](const CalibrationTokens::Block& block) {
      const auto hidden = block.hidden.on_host().values();
      second_way.insert(second_way.end(), hidden.begin(), hidden.end());
    });
    EXPECT_EQ(firsts, (std::vector<std::size_t>{0, kTokenBlock}));
    EXPECT_EQ(first_way.size(), (kTokenBlock + 3) * 4);
    EXPECT_EQ(first_way, second_way);
  }
}

}  // namespace
}  // namespace moefy::test
