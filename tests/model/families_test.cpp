#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

/// What moefy must find in the tiny model of a family: 2 layers, hidden size 16, 24 neurons.
struct Family {
  std::string name;
  std::string prefix;  ///< of layer 1
  std::string up;
  std::string activation;
  bool gated = false;
  bool biased = false;
  bool up_neuron_first = true;
  bool down_neuron_first = false;
  std::int64_t up_begin = 0;
  std::int64_t up_total = 24;
};

std::ostream& operator<<(std::ostream& stream, const Family& family) {
  return stream << family.name;
}

Family llama_like(const std::string& name, const std::string& activation) {
  return {.name = name,
          .prefix = "model.layers.1.mlp",
          .up = "up_proj.weight",
          .activation = activation,
          .gated = true};
}

const Family kFamilies[] = {
    llama_like("llama", "silu"),
    llama_like("mistral", "silu"),
    llama_like("qwen2", "silu"),
    llama_like("qwen3", "silu"),
    llama_like("granite", "silu"),
    llama_like("gemma", "gelu_pytorch_tanh"),
    llama_like("gemma2", "gelu_pytorch_tanh"),
    llama_like("gemma3_text", "gelu_pytorch_tanh"),
    {.name = "phi3",
     .prefix = "model.layers.1.mlp",
     .up = "gate_up_proj.weight",
     .activation = "silu",
     .gated = true,
     .up_begin = 24,
     .up_total = 48},
    {.name = "gpt2",
     .prefix = "transformer.h.1.mlp",
     .up = "c_fc.weight",
     .activation = "gelu_new",
     .biased = true,
     .up_neuron_first = false,
     .down_neuron_first = true},
    {.name = "opt",
     .prefix = "model.decoder.layers.1",
     .up = "fc1.weight",
     .activation = "relu",
     .biased = true},
    {.name = "gpt_neox",
     .prefix = "gpt_neox.layers.1.mlp",
     .up = "dense_h_to_4h.weight",
     .activation = "gelu",
     .biased = true},
    {.name = "bert",
     .prefix = "bert.encoder.layer.1",
     .up = "intermediate.dense.weight",
     .activation = "gelu",
     .biased = true},
    {.name = "t5",
     .prefix = "encoder.block.1.layer.1.DenseReluDense",
     .up = "wi.weight",
     .activation = "relu"},
    {.name = "t5-gated",
     .prefix = "encoder.block.1.layer.1.DenseReluDense",
     .up = "wi_1.weight",
     .activation = "gelu_new",
     .gated = true},
};

class FamilyTest : public testing::TestWithParam<Family> {};

TEST_P(FamilyTest, has_the_documented_layout) {
  const Family& family = GetParam();
  const test::TempDir dir;
  test::write_checkpoint(test::tiny_model(family.name), dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  const auto layers = Architecture::detect(checkpoint).layers(checkpoint);

  ASSERT_EQ(layers.size(), family.name.starts_with("t5") ? 5u : 2u);
  const LayerInfo& layer = layers[1];
  EXPECT_EQ(layer.index, 1);
  EXPECT_EQ(layer.index_in_stack, 1);
  EXPECT_EQ(layer.name, family.prefix);
  EXPECT_EQ(layer.num_neurons, 24);
  EXPECT_EQ(layer.hidden_size, 16);
  EXPECT_EQ(layer.activation, family.activation);
  EXPECT_EQ(layer.gated(), family.gated);
  EXPECT_EQ(layer.find(FfnRole::up_bias) != nullptr, family.biased);
  EXPECT_EQ(layer.find(FfnRole::down_bias) != nullptr, family.biased);
  ASSERT_NE(layer.find(FfnRole::up), nullptr);
  const FfnTensor& up = *layer.find(FfnRole::up);
  EXPECT_EQ(up.tensor, family.prefix + "." + family.up);
  EXPECT_EQ(up.neuron_first, family.up_neuron_first);
  EXPECT_EQ(up.slice_begin, family.up_begin);
  EXPECT_EQ(up.slice_total, family.up_total);
  ASSERT_NE(layer.find(FfnRole::down), nullptr);
  EXPECT_EQ(layer.find(FfnRole::down)->neuron_first, family.down_neuron_first);
  const std::uint64_t matrices = family.gated ? 3 : 2;
  EXPECT_EQ(layer.file_bytes(), 4 * (matrices * 24 * 16 + (family.biased ? 24 + 16 : 0)));
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest, testing::ValuesIn(kFamilies), [](const auto& test) {
  std::string name = test.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(FamiliesTest, counts_encoder_and_then_decoder_layers_of_t5) {
  const test::TempDir dir;
  test::write_checkpoint(test::tiny_model("t5"), dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  const auto layers = Architecture::detect(checkpoint).layers(checkpoint);

  ASSERT_EQ(layers.size(), 5u);
  EXPECT_EQ(layers[0].stack, "encoder");
  EXPECT_EQ(layers[2].stack, "decoder");
  EXPECT_EQ(layers[2].index, 2);
  EXPECT_EQ(layers[2].index_in_stack, 0);
  EXPECT_EQ(layers[4].name, "decoder.block.2.layer.2.DenseReluDense");
}

TEST(FamiliesTest, accepts_t5_without_decoder) {
  const test::TempDir dir;
  test::TinyModel model = test::tiny_model("t5-gated");
  std::erase_if(model.tensors, [](const auto& t) { return t.name.starts_with("decoder."); });
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  EXPECT_EQ(Architecture::detect(checkpoint).layers(checkpoint).size(), 2u);
}

struct OtherPrefix {
  std::string family;
  std::string from;
  std::string to;
};

class OtherPrefixTest : public testing::TestWithParam<OtherPrefix> {};

TEST_P(OtherPrefixTest, is_found) {
  const auto& [family, from, to] = GetParam();
  const test::TempDir dir;
  test::TinyModel model = test::tiny_model(family);
  for (auto& tensor : model.tensors)
    if (tensor.name.starts_with(from)) tensor.name.replace(0, from.size(), to);
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  const auto layers = Architecture::detect(checkpoint).layers(checkpoint);

  ASSERT_EQ(layers.size(), 2u);
  EXPECT_TRUE(layers[0].name.starts_with(to)) << layers[0].name;
}

INSTANTIATE_TEST_SUITE_P(
    All, OtherPrefixTest,
    testing::Values(OtherPrefix{"llama", "model.layers", "layers"},
                    OtherPrefix{"gpt2", "transformer.h", "h"},
                    OtherPrefix{"opt", "model.decoder.layers", "decoder.layers"},
                    OtherPrefix{"gpt_neox", "gpt_neox.layers", "layers"},
                    OtherPrefix{"bert", "bert.encoder", "encoder"},
                    OtherPrefix{"gemma3_text", "model.layers", "language_model.model.layers"},
                    OtherPrefix{"gemma3_text", "model.layers", "model.language_model.layers"}));

TEST(FamiliesTest, reads_the_text_model_of_a_multimodal_config) {
  const test::TempDir dir;
  test::TinyModel model = test::tiny_model("gemma3_text");
  model.config = R"({"model_type": "gemma3", "hidden_size": 99, "text_config": {"hidden_size": 16,
      "intermediate_size": 24, "num_hidden_layers": 2}})";
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  const auto layers = Architecture::detect(checkpoint).layers(checkpoint);

  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].hidden_size, 16);
  EXPECT_EQ(layers[0].activation, "gelu_pytorch_tanh");
}

TEST(FamiliesTest, takes_four_times_the_hidden_size_for_gpt2_without_a_width) {
  const test::TempDir dir;
  test::TinyModel model = test::tiny_model("gpt2", {.neurons = 64});
  model.config = R"({"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_inner": null})";
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  const auto layers = Architecture::detect(checkpoint).layers(checkpoint);

  EXPECT_EQ(layers[0].num_neurons, 64);
  EXPECT_EQ(layers[0].activation, "gelu_new");
}

TEST(FamiliesTest, reads_the_tanh_gelu_where_old_gemma_configs_say_gelu) {
  const test::TempDir dir;
  test::TinyModel model = test::tiny_model("gemma");
  model.config = R"({"model_type": "gemma", "hidden_size": 16, "intermediate_size": 24,
      "num_hidden_layers": 2, "hidden_act": "gelu", "hidden_activation": null})";
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  EXPECT_EQ(Architecture::detect(checkpoint).layers(checkpoint)[0].activation, "gelu_pytorch_tanh");
}

}  // namespace
}  // namespace moefy
