// Conversions computed by hand: a ReLU layer of four neurons, experts of unequal size, and the
// parameter counts of LLaMA-2-7B.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "conversion.hpp"

namespace moefy::test {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kMlp = "model.layers.0.mlp.";

void set_labels(Conversion& conversion, const std::vector<std::int32_t>& labels,
                std::size_t experts) {
  conversion.change_map([&](ExpertMap& map) {
    for (LayerResult& layer : map.layers)
      layer.partition = Partition::from_labels(labels, experts, 0);
  });
}

/// What the two experts of a Mixtral layer make of x = (2, 1), as they are stored.
std::vector<std::vector<float>> stored_outputs(const ConvertConfig& config) {
  TinyModel model = small_llama();
  json settings = json::parse(model.config);
  settings["hidden_act"] = "relu";
  model.config = settings.dump();
  Conversion conversion(std::move(model), {2, 0, 0, -1, 1});
  set_labels(conversion, {0, 1, 1, 0}, 2);
  ConvertConfig mixtral = config;
  mixtral.host = "mixtral";
  conversion.convert(mixtral);
  EXPECT_THAT(conversion.verify(), IsEmpty());

  const Checkpoint made = Checkpoint::open(conversion.output());
  std::vector<std::vector<float>> outputs;
  for (const char* expert : {"0", "1"}) {
    const auto values = [&](const char* role) {
      return values_of(made, std::string("model.layers.0.block_sparse_moe.experts.") + expert +
                                 "." + role + ".weight");
    };
    const std::vector<float> gate = values("w1"), up = values("w3"), down = values("w2");
    const std::size_t width = gate.size() / 2;
    std::vector<float> output(2, 0.0F);
    for (std::size_t i = 0; i < width; ++i) {
      const float z = 2 * gate[2 * i] + gate[2 * i + 1];
      const float hidden = std::max(z, 0.0F) * (2 * up[2 * i] + up[2 * i + 1]);
      for (std::size_t j = 0; j < 2; ++j) output[j] += hidden * down[j * width + i];
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

// z = (2, 1, 3, 1), u = (3, 4, 1, 2), h = (6, 4, 3, 2): the dense output is (13, 3), that of
// neurons 0 and 3 is (10, 2), that of 1 and 2 is (3, 1).

TEST(WorkedExampleTest, two_of_two_experts_by_a_flat_softmax) {
  // Scale E = 2 by default: half of each is the dense output.
  const auto outputs = stored_outputs({.top_k = 2, .gate_scale = "1"});
  EXPECT_THAT(outputs[0], ElementsAre(20, 4));
  EXPECT_THAT(outputs[1], ElementsAre(6, 2));
  // Scale 1: half of each is (6.5, 1.5).
  const auto plain = stored_outputs({.top_k = 2, .gate_scale = "1", .score_scale = "1"});
  EXPECT_THAT(plain[0], ElementsAre(10, 2));
  EXPECT_THAT(plain[1], ElementsAre(3, 1));
}

TEST(WorkedExampleTest, one_of_two_experts_by_a_softmax_keeps_the_mean) {
  // Weight 1 and scale 2: the mean over the two choices is (13, 3).
  const auto outputs = stored_outputs({.top_k = 1, .gate_scale = "1"});
  EXPECT_THAT(outputs[0], ElementsAre(20, 4));
  EXPECT_THAT(outputs[1], ElementsAre(6, 2));
}

TEST(WorkedExampleTest, experts_of_weight_one_carry_the_number_of_chosen_ones) {
  // A nearly flat softmax over the chosen: each weighs 1 / k.
  EXPECT_THAT(stored_outputs({.top_k = 2})[0], ElementsAre(20, 4));
  EXPECT_THAT(stored_outputs({.top_k = 1})[0], ElementsAre(10, 2));
}

TEST(WorkedExampleTest, unequal_experts_are_filled_up_to_three_rows) {
  constexpr std::int64_t kHidden = 16;
  const auto is_zero = [](float value) { return value == 0; };
  Conversion conversion(tiny_model("llama", {1, kHidden, 7, DType::f32, 3}), {3, 0, 2, -1, 1});
  set_labels(conversion, {0, 1, 1, 1, 2, 0, 2}, 3);

  conversion.convert({.host = "glm4-moe", .align = 1});

  const Checkpoint made = Checkpoint::open(conversion.output());
  for (const int expert : {0, 1, 2}) {
    SCOPED_TRACE(expert);
    const std::string name = kMlp + std::string("experts.") + std::to_string(expert);
    for (const char* role : {".gate_proj.weight", ".up_proj.weight"}) {
      const std::vector<float> values = values_of(made, name + role);
      ASSERT_EQ(values.size(), static_cast<std::size_t>(3 * kHidden));
      EXPECT_EQ(std::all_of(values.end() - kHidden, values.end(), is_zero), expert != 1);
    }
    const std::vector<float> down = values_of(made, name + ".down_proj.weight");
    for (std::size_t row = 0; row < static_cast<std::size_t>(kHidden); ++row)
      EXPECT_EQ(is_zero(down[3 * row + 2]), expert != 1) << row;
  }
  EXPECT_THAT(conversion.verify(), IsEmpty());
}

/// The tensors of LLaMA-2-7B, without their data: a file that is a hole behind its header.
void write_llama_2_7b(const std::filesystem::path& folder) {
  constexpr std::int64_t kLayers = 32, kHidden = 4096, kNeurons = 11008, kVocabulary = 32000;
  std::map<std::string, std::vector<std::int64_t>> shapes = {
      {"model.embed_tokens.weight", {kVocabulary, kHidden}},
      {"lm_head.weight", {kVocabulary, kHidden}},
      {"model.norm.weight", {kHidden}}};
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const char* name : {"q", "k", "v", "o"})
      shapes[prefix + "self_attn." + name + "_proj.weight"] = {kHidden, kHidden};
    for (const char* name : {"gate", "up"})
      shapes[prefix + "mlp." + name + "_proj.weight"] = {kNeurons, kHidden};
    shapes[prefix + "mlp.down_proj.weight"] = {kHidden, kNeurons};
    for (const char* name : {"input", "post_attention"})
      shapes[prefix + name + "_layernorm.weight"] = {kHidden};
  }
  json header;
  std::int64_t end = 0;
  for (const auto& [name, shape] : shapes) {
    const std::int64_t begin = end;
    end += 2 * std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    header[name] = {{"dtype", "F16"}, {"shape", shape}, {"data_offsets", {begin, end}}};
  }
  const std::string text = header.dump();
  std::filesystem::create_directories(folder);
  const std::filesystem::path file = folder / "model.safetensors";
  {
    std::ofstream out(file, std::ios::binary);
    const std::uint64_t size = text.size();
    out.write(reinterpret_cast<const char*>(&size), sizeof size);
    out << text;
  }
  std::filesystem::resize_file(file, 8 + text.size() + static_cast<std::uintmax_t>(end));
  std::ofstream(folder / "config.json") << json{
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_size", kHidden},
      {"intermediate_size", kNeurons},
      {"num_hidden_layers", kLayers},
      {"num_attention_heads", 32},
      {"num_key_value_heads", 32},
      {"vocab_size", kVocabulary},
      {"hidden_act", "silu"},
      {"tie_word_embeddings", false}}.dump();
}

class Llama7bTest : public testing::Test {
 protected:
  Llama7bTest()
      : checkpoint_([this] {
          write_llama_2_7b(dir_ / "model");
          return Checkpoint::open(dir_ / "model");
        }()),
        layers_(Architecture::detect(checkpoint_).layers(checkpoint_)) {}

  /// With as many routers of two layers as there are layers, if `deep`.
  ConversionSummary summary(std::size_t experts, const ConvertConfig& config, bool deep = false) {
    auto map = std::make_shared<ExpertMap>();
    map->header.num_layers = static_cast<std::int64_t>(layers_.size());
    for (const LayerInfo& layer : layers_) {
      LayerResult result;
      result.layer_index = layer.index;
      result.name = layer.name;
      result.hidden_size = layer.hidden_size;
      std::vector<std::int32_t> labels;
      for (std::int64_t i = 0; i < layer.num_neurons; ++i)
        labels.push_back(static_cast<std::int32_t>(i % static_cast<std::int64_t>(experts)));
      result.partition = Partition::from_labels(std::move(labels), experts, 0);
      if (deep) result.router.output.resize(experts, experts);
      map->layers.push_back(std::move(result));
    }
    return summarize(*plan_conversion(checkpoint_, layers_, map, config));
  }

  TempDir dir_;
  Checkpoint checkpoint_;
  std::vector<LayerInfo> layers_;
};

TEST_F(Llama7bTest, active_parameters_are_those_of_the_published_models) {
  // A linear gate has 4096 weights an expert.
  constexpr std::uint64_t kGateWeights = 32 * 4096;
  const ConversionSummary four_of_16 = summary(16, {.host = "mixtral", .top_k = 4});
  EXPECT_EQ(four_of_16.parameters_before, 6'738'415'616U);
  EXPECT_EQ(four_of_16.parameters_in_experts, 4'328'521'728U);
  EXPECT_EQ(four_of_16.parameters_active, 3'492'024'320U + 16 * kGateWeights);
  EXPECT_EQ(summary(8, {.host = "mixtral", .top_k = 2}).parameters_active,
            3'492'024'320U + 8 * kGateWeights);
  EXPECT_EQ(summary(16, {.host = "mixtral", .top_k = 2}).parameters_active,
            2'950'959'104U + 16 * kGateWeights);
}

TEST_F(Llama7bTest, gates_of_two_layers) {
  const ConversionSummary found = summary(16, {.host = "llama-moe", .top_k = 4}, true);
  // Beside the gates' 16 · 4096 + 16² a layer, their noise has 16 · 4096 weights, all zero.
  EXPECT_EQ(found.parameters_after - found.parameters_before, 2'105'344U + 32 * 16 * 4096);
}

}  // namespace
}  // namespace moefy::test
