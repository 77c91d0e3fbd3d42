#include "moefy/model/ffn_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "moefy/model/calibration_tokens.hpp"
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

TEST(FfnLayerTest, hidden_activations_of_a_gated_layer) {
  const FfnLayer layer = small_layer();
  const Matrix<float> inputs = matrix(2, 2, {2, 1, -1, 0});
  Matrix<float> hidden(2, 4), scratch;
  ThreadPool threads(1);

  ffn_hidden(layer, inputs.view(), hidden.view(), scratch, threads);

  EXPECT_TRUE(std::ranges::equal(hidden.row(0), std::vector<float>{6, 4, 3, 2}));
  EXPECT_TRUE(std::ranges::equal(hidden.row(1), std::vector<float>{0, 0, 0, 0}));
}

TEST(FfnLayerTest, biases_are_added_before_the_activation) {
  FfnLayer layer = small_layer();
  layer.gate.resize(0, 0);
  layer.up_bias = {-3, 0, 1, -3};
  const Matrix<float> inputs = matrix(1, 2, {2, 1});
  Matrix<float> hidden(1, 4), scratch;
  ThreadPool threads(1);

  ffn_hidden(layer, inputs.view(), hidden.view(), scratch, threads);

  EXPECT_TRUE(std::ranges::equal(hidden.row(0), std::vector<float>{0, 4, 2, 0}));
}

TEST(FfnLayerTest, expert_norms_are_those_of_their_outputs) {
  // Experts {0, 3} and {1, 2}: outputs (10, 2) and (3, 1).
  ThreadPool threads(1);
  const ExpertNorms norms(small_layer(), {{0, 3}, {1, 2}}, threads);
  const Matrix<float> hidden = matrix(1, 4, {6, 4, 3, 2});
  Matrix<float> out(1, 2);

  norms.compute(hidden.view(), out.view(), threads);

  EXPECT_NEAR(out.row(0)[0], std::sqrt(104.0), 1e-5);
  EXPECT_NEAR(out.row(0)[1], std::sqrt(10.0), 1e-5);
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

class FixedInputs : public LayerInputs {
 public:
  explicit FixedInputs(Matrix<float> values) : values_(std::move(values)) {}
  std::size_t num_tokens() const override { return values_.rows(); }
  MatrixView<const float> rows(std::size_t first, std::size_t count,
                               Matrix<float>& /*scratch*/) const override {
    return {values_.values().data() + first * values_.cols(), count, values_.cols()};
  }

 private:
  Matrix<float> values_;
};

TEST(CalibrationTokensTest, blocks_are_the_same_kept_or_computed_again) {
  const FfnLayer layer = small_layer();
  Matrix<float> values(kTokenBlock + 3, 2);
  for (std::size_t i = 0; i < values.values().size(); ++i)
    values.values()[i] = static_cast<float>(i % 7) - 3;
  const FixedInputs inputs(std::move(values));
  ThreadPool threads(2);
  CalibrationTokens kept(layer, inputs, 1 << 20, threads);
  CalibrationTokens again(layer, inputs, 0, threads);

  for (int pass = 0; pass < 2; ++pass) {
    std::vector<std::size_t> firsts;
    std::vector<float> first_way, second_way;
    kept.for_each_block([&](const CalibrationTokens::Block& block) {
      firsts.push_back(block.first);
      first_way.insert(first_way.end(), block.hidden.values().begin(), block.hidden.values().end());
    });
    again.for_each_block([&](const CalibrationTokens::Block& block) {
      second_way.insert(second_way.end(), block.hidden.values().begin(),
                        block.hidden.values().end());
    });
    EXPECT_EQ(firsts, (std::vector<std::size_t>{0, kTokenBlock}));
    EXPECT_EQ(first_way.size(), (kTokenBlock + 3) * 4);
    EXPECT_EQ(first_way, second_way);
  }
}

}  // namespace
}  // namespace moefy::test
