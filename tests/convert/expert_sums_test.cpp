// What experts add up to, layer by layer: for layers shaped as in Llama (gated, no biases), GPT-2
// (biases, stored neuron by column) and T5 (plain ReLU, and gated), read from checkpoints.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/backend/backend.hpp"
#include "moefy/core/random.hpp"
#include "moefy/model/ffn_layer.hpp"
#include "moefy/partition/partition.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy::test {
namespace {

constexpr std::size_t kTokens = 5;
/// Of the largest output: fp32 sums in another order.
constexpr double kTolerance = 1e-6;

Matrix<float> rows_at(const Matrix<float>& from, std::span<const std::int32_t> ids) {
  Matrix<float> rows(from.rows() > 0 ? ids.size() : 0, from.cols());
  for (std::size_t i = 0; i < rows.rows(); ++i)
    std::ranges::copy(from.row(static_cast<std::size_t>(ids[i])), rows.row(i).begin());
  return rows;
}

std::vector<float> values_at(const std::vector<float>& from, std::span<const std::int32_t> ids) {
  std::vector<float> values;
  for (std::size_t i = 0; i < ids.size() && !from.empty(); ++i)
    values.push_back(from[static_cast<std::size_t>(ids[i])]);
  return values;
}

/// The neurons `ids` of a layer, without the output's bias, which belongs to no neuron.
FfnLayer expert_of(const FfnLayer& layer, std::span<const std::int32_t> ids) {
  FfnLayer expert;
  expert.info = layer.info;
  expert.gate = rows_at(layer.gate, ids);
  expert.up = rows_at(layer.up, ids);
  expert.down = rows_at(layer.down, ids);
  expert.gate_bias = values_at(layer.gate_bias, ids);
  expert.up_bias = values_at(layer.up_bias, ids);
  return expert;
}

/// out [T, hidden_size] += weight · the neurons' outputs, neuron i counted times[i] times (empty:
/// once).
void add_output(const FfnLayer& layer, const Matrix<float>& inputs, float weight,
                Matrix<float>& out, std::span<const std::int32_t> times = {}) {
  const std::unique_ptr<Backend> backend = make_reference_backend(1);
  LinearAlgebra& algebra = backend->algebra();
  const std::unique_ptr<BackendMatrix> computed = algebra.make_matrix();
  const std::unique_ptr<BackendMatrix> rows = algebra.make_matrix();
  rows->assign(inputs.view());
  FfnOnBackend(layer, algebra).compute_hidden(*rows, *computed);
  const MatrixView<const float> hidden = std::as_const(*computed).on_host();
  for (std::size_t t = 0; t < inputs.rows(); ++t)
    for (std::size_t i = 0; i < layer.num_neurons(); ++i) {
      const float count = times.empty() ? 1.0F : static_cast<float>(times[i]);
      for (std::size_t j = 0; j < out.cols(); ++j)
        out.row(t)[j] += weight * count * hidden.row(t)[i] * layer.down.row(i)[j];
    }
}

Matrix<float> zero_output(const FfnLayer& layer) {
  Matrix<float> out(kTokens, layer.hidden_size());
  std::ranges::fill(out.values(), 0.0F);
  for (std::size_t t = 0; t < kTokens && !layer.down_bias.empty(); ++t)
    std::ranges::copy(layer.down_bias, out.row(t).begin());
  return out;
}

class ExpertSumsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const TempDir dir;
    write_checkpoint(tiny_model(GetParam(), {2, 16, 24, DType::f32, 5}), dir / "model");
    const Checkpoint checkpoint = Checkpoint::open(dir / "model");
    layer_ = load_ffn_layer(checkpoint, Architecture::detect(checkpoint).layers(checkpoint)[1]);
    inputs_.resize(kTokens, layer_.hidden_size());
    RandomStream stream(2, 0, RandomPurpose::verification);
    for (float& value : inputs_.values()) value = stream.next_normal();
  }

  Matrix<float> dense(std::span<const std::int32_t> times = {}) const {
    Matrix<float> out = zero_output(layer_);
    add_output(layer_, inputs_, 1, out, times);
    return out;
  }

  /// All experts on: each routed one weighs `routed`, each shared one `shared`.
  Matrix<float> moe(const NeuronLists& lists, double routed, double shared) const {
    Matrix<float> out = zero_output(layer_);
    for (std::size_t e = 0; e < lists.num_experts(); ++e)
      add_output(expert_of(layer_, lists.expert_members(e)), inputs_, static_cast<float>(routed),
                 out);
    for (std::size_t r = 0; r < lists.num_shared(); ++r)
      add_output(expert_of(layer_, lists.shared_members(r)), inputs_, static_cast<float>(shared),
                 out);
    return out;
  }

  /// A random partition into equally large experts; 24 neurons.
  Partition partition(std::size_t experts, std::size_t shared) const {
    std::vector<std::int32_t> labels;
    const auto sizes = equal_sizes(layer_.num_neurons(), experts + shared);
    for (std::size_t list = 0; list < sizes.size(); ++list)
      labels.insert(labels.end(), sizes[list],
                    list < experts ? static_cast<std::int32_t>(list) : kSharedLabel);
    RandomStream stream(3, 0, RandomPurpose::verification);
    shuffle(labels, stream);
    return Partition::from_labels(std::move(labels), experts, shared);
  }

  static void expect_same(const Matrix<float>& found, const Matrix<float>& expected) {
    double largest = 0;
    for (const float value : expected.values())
      largest = std::max(largest, std::abs(static_cast<double>(value)));
    ASSERT_GT(largest, 0);
    for (std::size_t i = 0; i < expected.values().size(); ++i)
      EXPECT_NEAR(found.values()[i], expected.values()[i], kTolerance * largest) << i;
  }

  FfnLayer layer_;
  Matrix<float> inputs_;
};

TEST_P(ExpertSumsTest, all_experts_of_weight_one_are_the_dense_layer) {
  expect_same(moe(partition(5, 0), 1, 1), dense());
}

TEST_P(ExpertSumsTest, a_flat_softmax_times_the_number_of_experts_is_the_dense_layer) {
  const double weight = 1.0 / 5;
  expect_same(moe(partition(5, 0), 5 * weight, 1), dense());
}

TEST_P(ExpertSumsTest, residual_experts_times_their_number_are_the_dense_layer) {
  const double residual_weight = 1.0 / 3;
  expect_same(moe(partition(4, 3), 4 * (1.0 / 4), 3 * residual_weight), dense());
}

TEST_P(ExpertSumsTest, shared_neurons_count_as_often_as_they_stand_in_lists) {
  std::vector<std::vector<std::int32_t>> lists(3);
  for (std::int32_t i = 0; i < 24; ++i) {
    lists[static_cast<std::size_t>(i % 3)].push_back(i);
    if (i % 4 == 0) lists[static_cast<std::size_t>((i + 1) % 3)].push_back(i);
  }
  const NeuronLists sharing = NeuronLists::from_lists(24, lists);
  const std::vector<std::int32_t> times = multiplicities(sharing);
  ASSERT_EQ(std::accumulate(times.begin(), times.end(), 0), 24 + 6);
  expect_same(moe(sharing, 1, 1), dense(times));
}

TEST_P(ExpertSumsTest, neurons_of_experts_put_back_are_the_dense_layers_bytes) {
  const Partition split = partition(5, 2);
  // Where each neuron stands among the members.
  std::vector<std::int32_t> place(layer_.num_neurons());
  for (std::size_t i = 0; i < place.size(); ++i)
    place[static_cast<std::size_t>(split.members()[i])] = static_cast<std::int32_t>(i);

  const FfnLayer back = expert_of(expert_of(layer_, split.members()), place);

  const auto same = [](const Matrix<float>& a, const Matrix<float>& b) {
    return std::ranges::equal(std::as_bytes(a.values()), std::as_bytes(b.values()));
  };
  EXPECT_TRUE(same(back.gate, layer_.gate));
  EXPECT_TRUE(same(back.up, layer_.up));
  EXPECT_TRUE(same(back.down, layer_.down));
  EXPECT_EQ(back.up_bias, layer_.up_bias);
}

INSTANTIATE_TEST_SUITE_P(Families, ExpertSumsTest,
                         testing::Values("llama", "gpt2", "t5", "t5-gated"));

}  // namespace
}  // namespace moefy::test
