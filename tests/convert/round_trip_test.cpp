#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conversion.hpp"
#include "moefy/core/error.hpp"

namespace moefy::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Case {
  std::string family;
  std::string host;
  MapShape shape;
  DType dtype = DType::bf16;
  std::string layout = "classic";
  std::size_t num_shards = 1;
};

void PrintTo(const Case& item, std::ostream* out) {
  *out << item.family << " to " << item.host << " " << item.layout << ", " << item.shape.experts
       << " experts, " << item.shape.shared << " shared, top-k " << item.shape.top_k << ", "
       << name_of(item.dtype);
}

class RoundTripTest : public testing::TestWithParam<Case> {};

TEST_P(RoundTripTest, verifies_and_restores_every_byte) {
  const Case& item = GetParam();
  Conversion conversion(tiny_model(item.family, {2, 16, 26, item.dtype, 3}), item.shape,
                        item.num_shards);
  ConvertConfig config;
  config.host = item.host;
  config.layout = item.layout;
  config.shard_size = 6000;

  conversion.convert(config);
  EXPECT_THAT(conversion.verify(), IsEmpty());
  conversion.restore();

  const Checkpoint restored = Checkpoint::open(conversion.restored());
  const Checkpoint& dense = conversion.dense();
  EXPECT_EQ(restored.config_text(), dense.config_text());
  ASSERT_EQ(restored.tensors().size(), dense.tensors().size());
  for (const TensorInfo& tensor : dense.tensors()) {
    SCOPED_TRACE(tensor.name);
    const TensorInfo* back = restored.find(tensor.name);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->dtype, tensor.dtype);
    EXPECT_EQ(back->shape, tensor.shape);
    EXPECT_EQ(bytes_of(restored, tensor.name), bytes_of(dense, tensor.name));
  }
}

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const char* family :
       {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "phi3",
        "gpt2", "opt", "gpt_neox", "bert", "t5", "t5-gated"})
    for (const DType dtype : {DType::bf16, DType::f32})
      list.push_back({family, "dense", {3, 1, 0, -1, 1}, dtype, "classic", 1});
  for (const char* family : {"llama", "mistral", "qwen2"})
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      list.push_back({family, "qwen2-moe", {4, 0, 0, -1, 1}, dtype, "classic", 1});
      list.push_back({family, "qwen2-moe", {8, 2, 3, -1, 1}, dtype, "classic", 2});
      list.push_back({family, "qwen2-moe", {5, 1, 4, -1, 1}, dtype, "classic", 1});
      list.push_back({family, "qwen2-moe", {4, 1, 0, 1, 1}, dtype, "classic", 1});
      list.push_back({family, "qwen2-moe", {4, 1, 0, -1, 1}, dtype, "fused", 1});
    }
  for (const char* family : {"llama", "qwen2", "qwen3"})
    for (const char* layout : {"classic", "fused"}) {
      list.push_back({family, "glm4-moe", {5, 0, 2, -1, 1}, DType::bf16, layout, 1});
      list.push_back({family, "glm4-moe", {6, 3, 2, 1, 1}, DType::f32, layout, 2});
    }
  for (const char* layout : {"classic", "fused"}) {
    list.push_back({"qwen3", "qwen3-moe", {4, 0, 3, -1, 1}, DType::bf16, layout, 1});
    list.push_back({"qwen3", "qwen3-moe", {5, 0, 2, 0, 1}, DType::f16, layout, 1});
  }
  for (const char* layout : {"classic", "fused"}) {
    for (const char* family : {"llama", "granite", "gemma"}) {
      list.push_back({family, "granitemoe", {5, 0, 2, -1, 1}, DType::bf16, layout, 1});
      list.push_back({family, "granitemoeshared", {4, 0, 4, -1, 1}, DType::f16, layout, 1});
      list.push_back({family, "granitemoeshared", {6, 3, 2, -1, 1}, DType::f32, layout, 2});
    }
    for (const char* family : {"llama", "qwen2"})
      list.push_back({family, "solar-open", {6, 3, 2, -1, 1}, DType::f32, layout, 1});
    list.push_back({"llama", "solar-open", {5, 0, 2, -1, 1}, DType::bf16, layout, 1});
    for (const char* host : {"dots1", "exaone-moe"}) {
      list.push_back({"qwen3", host, {5, 0, 2, -1, 1}, DType::bf16, layout, 1});
      list.push_back({"qwen3", host, {6, 3, 2, 1, 1}, DType::f32, layout, 2});
    }
    list.push_back({"qwen3", "exaone-moe", {4, 1, 2, 0, 1}, DType::f16, layout, 1});
  }
  for (const char* family : {"llama", "mistral", "gemma"})
    for (const char* layout : {"classic", "fused"})
      list.push_back({family, "mixtral", {5, 0, 2, -1, 1}, DType::bf16, layout, 1});
  list.push_back({"gemma", "mixtral", {5, 0, 2, -1, 1}, DType::f16, "classic", 1});
  return list;
}

INSTANTIATE_TEST_SUITE_P(Families, RoundTripTest, testing::ValuesIn(cases()));

TEST(VerifyTest, names_the_neuron_of_a_flipped_bit) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const Checkpoint made = Checkpoint::open(conversion.output());
  const std::string name = "model.layers.1.mlp.experts.2.up_proj.weight";
  // The third row of the expert: 16 values of four bytes a row.
  flip_bit(made, name, 2 * 16 * 4 + 5);

  const std::vector<std::string> differences = conversion.verify();

  const auto neuron = conversion.map().layers[1].partition.expert_members(2)[2];
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_THAT(differences[0], AllOf(HasSubstr("layer 1, expert 2"), HasSubstr(name),
                                    HasSubstr("neuron " + std::to_string(neuron) + ":")));
}

TEST(VerifyTest, sees_a_flipped_bit_outside_the_experts) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  flip_bit(Checkpoint::open(conversion.output()), "model.norm.weight", 3);

  EXPECT_THAT(conversion.verify(), ElementsAre(HasSubstr("model.norm.weight")));
}

TEST(VerifyTest, sees_two_experts_swapped_without_their_router_rows) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const Checkpoint made = Checkpoint::open(conversion.output());
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    const auto name = [&](int expert) {
      return "model.layers.0.mlp.experts." + std::to_string(expert) + "." + part + ".weight";
    };
    const std::vector<std::byte> first = bytes_of(made, name(0));
    overwrite(made, name(0), bytes_of(made, name(1)));
    overwrite(made, name(1), first);
  }

  const std::vector<std::string> differences = conversion.verify();

  EXPECT_EQ(differences.size(), 6u);
  EXPECT_THAT(differences, testing::Each(HasSubstr("layer 0, expert")));
}

TEST(VerifyTest, sees_a_dropped_expert) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const Checkpoint made = Checkpoint::open(conversion.output());
  TinyModel smaller;
  smaller.config = made.config_text();
  for (const TensorInfo& tensor : made.tensors())
    if (tensor.name.find("layers.1.mlp.experts.3.") == std::string::npos)
      smaller.tensors.push_back(
          {tensor.name, tensor.dtype, tensor.shape, bytes_of(made, tensor.name)});
  for (const Shard& shard : made.shards())
    std::filesystem::remove(conversion.output() / shard.file_name);
  std::filesystem::remove(conversion.output() / "model.safetensors.index.json");
  write_checkpoint(smaller, conversion.output());

  const std::vector<std::string> differences = conversion.verify();

  EXPECT_EQ(differences.size(), 3u);
  EXPECT_THAT(differences, testing::Each(AllOf(HasSubstr("experts.3."), HasSubstr("missing"))));
}

TEST(VerifyTest, sees_extra_tensors_and_another_dtype) {
  Conversion conversion(tiny_model("llama", {}));
  // Its class ignores layers 46 and 92 without a word.
  conversion.convert({.host = "glm4-moe"});
  const Checkpoint made = Checkpoint::open(conversion.output());
  TinyModel changed;
  changed.config = made.config_text();
  for (const TensorInfo& tensor : made.tensors())
    changed.tensors.push_back(
        {tensor.name, tensor.dtype, tensor.shape, bytes_of(made, tensor.name)});
  for (const char* layer : {"46", "92"})
    changed.tensors.push_back(
        random_tensor(std::string("model.layers.") + layer + ".extra", DType::f32, {4}));
  changed.at("model.norm.weight").dtype = DType::i32;
  for (const Shard& shard : made.shards())
    std::filesystem::remove(conversion.output() / shard.file_name);
  std::filesystem::remove(conversion.output() / "model.safetensors.index.json");
  write_checkpoint(changed, conversion.output());

  EXPECT_THAT(conversion.verify(),
              ElementsAre(AllOf(HasSubstr("model.norm.weight"), HasSubstr("I32")),
                          HasSubstr("model.layers.46.extra"), HasSubstr("model.layers.92.extra")));
}

class VerifyConfigTest : public testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(VerifyConfigTest, sees_a_changed_key) {
  const auto& [key, value] = GetParam();
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const auto path = conversion.output() / "config.json";
  nlohmann::json config = nlohmann::json::parse(read_text(path));
  config[key] = nlohmann::json::parse(value);
  write_text(path, config.dump());

  EXPECT_THAT(conversion.verify(), ElementsAre(AllOf(HasSubstr("config.json"), HasSubstr(key))));
}

INSTANTIATE_TEST_SUITE_P(
    Keys, VerifyConfigTest,
    testing::Values(std::pair{"norm_topk_prob", "true"}, std::pair{"qkv_bias", "true"},
                    std::pair{"num_experts", "5"}, std::pair{"num_experts_per_tok", "5"},
                    std::pair{"rms_norm_eps", "1e-5"}, std::pair{"attention_bias", "true"}));

TEST(VerifyTest, accepts_an_edited_top_k_where_the_host_allows_it) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const auto path = conversion.output() / "config.json";
  nlohmann::json config = nlohmann::json::parse(read_text(path));
  config["num_experts_per_tok"] = 2;
  write_text(path, config.dump());

  EXPECT_THAT(conversion.verify(), IsEmpty());
}

TEST(VerifyTest, sees_a_changed_manifest) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const auto path = manifest_of_output(conversion.output());
  nlohmann::json manifest = nlohmann::json::parse(read_text(path));
  manifest["gate_scale_log2"][1] = -3;
  write_text(path, manifest.dump());

  EXPECT_THAT(conversion.verify(), ElementsAre(HasSubstr("gate_scale_log2")));
}

TEST(CheckLayerTest, names_layer_and_neuron_of_a_corrupted_label) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const Checkpoint made = Checkpoint::open(conversion.output());
  // The map of the plan says another thing than what was written: neurons a and b changed places.
  auto other = std::make_shared<ExpertMap>(
      random_map(conversion.dense(), conversion.layers(), {4, 0, 0, -1, 1}));
  const std::span<const std::int32_t> labels = other->layers[1].partition.labels();
  std::vector<std::int32_t> corrupted(labels.begin(), labels.end());
  const auto a = other->layers[1].partition.expert_members(0).back();
  const auto b = other->layers[1].partition.expert_members(3).back();
  std::swap(corrupted[static_cast<std::size_t>(a)], corrupted[static_cast<std::size_t>(b)]);
  other->layers[1].partition = Partition::from_labels(corrupted, 4, 0);
  const auto plan = plan_conversion(conversion.dense(), conversion.layers(), other, {});
  const auto backend = make_reference_backend(1);

  const LayerCheck sound = check_layer(*plan, conversion.dense(), made, 0, *backend, {});
  const LayerCheck broken = check_layer(*plan, conversion.dense(), made, 1, *backend, {});

  EXPECT_THAT(sound.problem, IsEmpty());
  EXPECT_LT(sound.difference, 1e-5);
  EXPECT_THAT(broken.problem, AllOf(HasSubstr("layer 1"), HasSubstr("neuron")));
}

TEST(CheckLayerTest, sees_a_wrong_down_projection) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert();
  const Checkpoint made = Checkpoint::open(conversion.output());
  const std::string name = "model.layers.0.mlp.experts.1.down_proj.weight";
  std::vector<std::byte> bytes = bytes_of(made, name);
  const float wrong = 1;
  std::memcpy(bytes.data() + 8, &wrong, sizeof wrong);
  overwrite(made, name, bytes);
  const auto backend = make_reference_backend(1);

  const LayerCheck check =
      check_layer(*conversion.plan({}), conversion.dense(), made, 0, *backend, {});

  EXPECT_THAT(check.problem, HasSubstr("down projection"));
}

TEST(CheckLayerTest, bound_shrinks_with_the_gate_scale) {
  Conversion conversion(tiny_model("llama", {}));
  conversion.convert({.gate_scale = "2^-6"});
  const auto backend = make_reference_backend(1);
  const LayerCheck wide = check_layer(*conversion.plan({.gate_scale = "2^-6"}), conversion.dense(),
                                      Checkpoint::open(conversion.output()), 0, *backend, {});
  conversion.convert({.gate_scale = "2^-14"});
  const LayerCheck narrow =
      check_layer(*conversion.plan({.gate_scale = "2^-14"}), conversion.dense(),
                  Checkpoint::open(conversion.output()), 0, *backend, {});

  EXPECT_GT(wide.bound, 0);
  // Weights are 1 + O(2^-m): 2^8 smaller, up to rounding.
  EXPECT_NEAR(narrow.bound / wide.bound, 0x1p-8, 0x1p-10);
}

TEST(RestoreTest, refuses_a_directory_that_convert_did_not_make) {
  Conversion conversion(tiny_model("llama", {}));

  EXPECT_THROW(plan_of_output(conversion.dense()), InputError);
}

}  // namespace
}  // namespace moefy::test
