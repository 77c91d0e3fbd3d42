#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

class LayersTest : public testing::Test {
 protected:
  std::vector<LayerInfo> layers() const {
    test::write_checkpoint(model_, dir_.path());
    const Checkpoint checkpoint = Checkpoint::open(dir_.path());
    return Architecture::detect(checkpoint).layers(checkpoint);
  }
  void expect_refused(const std::string& first, const std::string& second = "") const {
    EXPECT_THAT([&] { layers(); },
                ThrowsMessage<InputError>(
                    AllOf(HasSubstr(dir_.path().string()), HasSubstr(first), HasSubstr(second))));
  }
  void edit_config(const std::string& from, const std::string& to) {
    const auto at = model_.config.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    model_.config.replace(at, from.size(), to);
  }

  test::TempDir dir_;
  test::TinyModel model_ = test::tiny_model("llama");
};

TEST_F(LayersTest, refuses_a_layer_count_above_the_tensors) {
  edit_config(R"("num_hidden_layers": 2)", R"("num_hidden_layers": 3)");

  expect_refused("says 3 decoder layers", "are there for 2");
}

TEST_F(LayersTest, refuses_a_layer_count_below_the_tensors) {
  edit_config(R"("num_hidden_layers": 2)", R"("num_hidden_layers": 1)");

  expect_refused("says 1 decoder layers", "are there for 2");
}

TEST_F(LayersTest, refuses_a_width_that_disagrees) {
  edit_config(R"("intermediate_size": 24)", R"("intermediate_size": 25)");

  expect_refused("'model.layers.0.mlp.gate_proj.weight' of model.safetensors has shape [24, 16]",
                 "[25, 16] is expected: config.json says intermediate_size 25 and hidden_size 16");
}

TEST_F(LayersTest, refuses_a_hidden_size_that_disagrees) {
  edit_config(R"("hidden_size": 16)", R"("hidden_size": 8)");

  expect_refused("has shape [24, 16]", "hidden_size 8");
}

TEST_F(LayersTest, refuses_a_transposed_tensor) {
  model_.at("model.layers.1.mlp.down_proj.weight").shape = {24, 16};

  expect_refused("layer 1",
                 "'model.layers.1.mlp.down_proj.weight' of model.safetensors has shape "
                 "[24, 16], but [16, 24] is expected");
}

TEST_F(LayersTest, refuses_a_wrong_rank) {
  model_.at("model.layers.0.mlp.up_proj.weight").shape = {24 * 16};

  expect_refused("has shape [384], but [24, 16] is expected");
}

TEST_F(LayersTest, refuses_a_wrong_dtype) {
  auto& tensor = model_.at("model.layers.0.mlp.up_proj.weight");
  tensor.dtype = DType::i32;

  expect_refused("'model.layers.0.mlp.up_proj.weight' of model.safetensors has dtype I32",
                 "must be F32, F16 or BF16");
}

TEST_F(LayersTest, accepts_tensors_of_different_dtypes) {
  auto& tensor = model_.at("model.layers.0.mlp.up_proj.weight");
  tensor = test::random_tensor(tensor.name, DType::bf16, tensor.shape);

  EXPECT_EQ(layers()[0].find(FfnRole::up)->dtype, DType::bf16);
}

TEST_F(LayersTest, names_a_missing_tensor) {
  model_.erase("model.layers.1.mlp.up_proj.weight");

  expect_refused("layer 1 (family llama): tensor 'model.layers.1.mlp.up_proj.weight' is missing");
}

TEST_F(LayersTest, names_a_missing_tensor_of_the_first_layer) {
  model_.erase("model.layers.0.mlp.up_proj.weight");

  expect_refused("tensor 'model.layers.0.mlp.up_proj.weight' is missing");
}

TEST_F(LayersTest, refuses_a_checkpoint_without_ffn) {
  std::erase_if(model_.tensors, [](const auto& t) { return t.name.find(".mlp.") != t.name.npos; });

  expect_refused(
      "no tensor 'model.layers.0.mlp.gate_proj.weight' (family llama, prefixes tried: "
      "model.layers.{layer}.mlp, layers.{layer}.mlp)");
}

TEST_F(LayersTest, finds_biases_of_layers_that_have_them) {
  model_.tensors.push_back(
      test::random_tensor("model.layers.0.mlp.up_proj.bias", DType::f32, {24}));

  const auto found = layers();

  EXPECT_NE(found[0].find(FfnRole::up_bias), nullptr);
  EXPECT_EQ(found[0].find(FfnRole::gate_bias), nullptr);
  EXPECT_EQ(found[1].find(FfnRole::up_bias), nullptr);
}

TEST_F(LayersTest, refuses_a_tensor_of_the_ffn_that_the_family_does_not_describe) {
  model_ = test::tiny_model("mistral");
  model_.tensors.push_back(
      test::random_tensor("model.layers.1.mlp.up_proj.bias", DType::f32, {24}));

  expect_refused("tensor 'model.layers.1.mlp.up_proj.bias' belongs to the FFN",
                 "mistral.json does not describe it");
}

TEST_F(LayersTest, refuses_sizes_that_are_no_sizes) {
  const std::string good = model_.config;
  for (const char* value :
       {"0", "-2", "2.0", "\"2\"", "[2]", "true", "2147483648", "99999999999999999999"}) {
    SCOPED_TRACE(value);
    model_.config = good;
    edit_config(R"("num_hidden_layers": 2)", std::string(R"("num_hidden_layers": )") + value);
    expect_refused("'num_hidden_layers' must be a whole number from 1 to 2147483647");
  }
}

TEST_F(LayersTest, refuses_a_config_without_sizes) {
  edit_config(R"("intermediate_size": 24, )", "");

  expect_refused("config.json: no 'intermediate_size', which family llama needs");
}

TEST_F(LayersTest, counts_ten_and_more_layers) {
  model_ = test::tiny_model("llama", {.layers = 12, .hidden = 2, .neurons = 2});

  const auto found = layers();

  ASSERT_EQ(found.size(), 12u);
  EXPECT_EQ(found[11].name, "model.layers.11.mlp");
}

TEST_F(LayersTest, counts_parameters) {
  model_ = {
      model_.config,
      {test::random_tensor("a", DType::bf16, {3, 5}), test::random_tensor("b", DType::f32, {})}};
  test::write_checkpoint(model_, dir_.path());

  EXPECT_EQ(parameter_count(Checkpoint::open(dir_.path())), 16u);
}

TEST_F(LayersTest, survive_the_wire) {
  for (const char* family : {"llama", "phi3", "gpt2", "t5-gated"}) {
    SCOPED_TRACE(family);
    model_ = test::tiny_model(family, {.dtype = DType::bf16});
    const auto sent = layers();

    const auto received = deserialize_layers(serialize(sent));

    ASSERT_EQ(received.size(), sent.size());
    for (std::size_t i = 0; i < sent.size(); ++i) {
      EXPECT_EQ(received[i].index, sent[i].index);
      EXPECT_EQ(received[i].stack, sent[i].stack);
      EXPECT_EQ(received[i].index_in_stack, sent[i].index_in_stack);
      EXPECT_EQ(received[i].name, sent[i].name);
      EXPECT_EQ(received[i].num_neurons, sent[i].num_neurons);
      EXPECT_EQ(received[i].num_neurons_key, sent[i].num_neurons_key);
      EXPECT_EQ(received[i].hidden_size, sent[i].hidden_size);
      EXPECT_EQ(received[i].activation, sent[i].activation);
      ASSERT_EQ(received[i].tensors.size(), sent[i].tensors.size());
      for (std::size_t j = 0; j < sent[i].tensors.size(); ++j) {
        const FfnTensor& a = received[i].tensors[j];
        const FfnTensor& b = sent[i].tensors[j];
        EXPECT_EQ(
            std::tie(a.role, a.tensor, a.neuron_first, a.slice_begin, a.slice_total, a.dtype),
            std::tie(b.role, b.tensor, b.neuron_first, b.slice_begin, b.slice_total, b.dtype));
      }
    }
  }
}

TEST_F(LayersTest, refuse_cut_or_long_wire_bytes) {
  auto bytes = serialize(layers());
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_THROW(deserialize_layers(std::span(bytes).first(length)), CommError) << length;
  bytes.push_back(std::byte{0});
  EXPECT_THROW(deserialize_layers(bytes), CommError);
}

}  // namespace
}  // namespace moefy
