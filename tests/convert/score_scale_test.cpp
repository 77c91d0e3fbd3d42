// --score-scale: what the routed experts' sum is multiplied by.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conversion.hpp"
#include "moefy/core/error.hpp"

namespace moefy::test {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kDown = "model.layers.0.mlp.down_proj.weight";

/// By how much the first down value of expert 0 in layer 0 is larger than the dense one.
double factor_in_down(const Conversion& conversion, const std::string& expert) {
  const Checkpoint made = Checkpoint::open(conversion.output());
  const auto neuron = conversion.map().layers[0].partition.expert_members(0)[0];
  return static_cast<double>(values_of(made, expert)[0]) /
         static_cast<double>(
             values_of(conversion.dense(), kDown)[static_cast<std::size_t>(neuron)]);
}

double mixtral_factor(const ConvertConfig& config) {
  Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {4, 0, 2, -1, 1});
  ConvertConfig mixtral = config;
  mixtral.host = "mixtral";
  conversion.convert(mixtral);
  EXPECT_THAT(conversion.verify(), IsEmpty());
  return factor_in_down(conversion, "model.layers.0.block_sparse_moe.experts.0.w2.weight");
}

TEST(ScoreScaleTest, auto_is_one_for_unit_weights_and_the_experts_for_a_softmax) {
  // The class weighs the chosen two by a softmax that sums to one.
  EXPECT_EQ(mixtral_factor({}), 2);
  EXPECT_EQ(mixtral_factor({.gate_scale = "1"}), 4);
  EXPECT_EQ(mixtral_factor({.top_k = 4, .gate_scale = "1"}), 4);
}

TEST(ScoreScaleTest, a_number_multiplies_unit_weights_or_the_softmax) {
  EXPECT_EQ(mixtral_factor({.score_scale = "0.5"}), 1);
  EXPECT_EQ(mixtral_factor({.gate_scale = "1", .score_scale = "8"}), 8);
  EXPECT_NEAR(mixtral_factor({.score_scale = "1.5"}), 3, 1e-6);
}

TEST(ScoreScaleTest, each_sigmoid_expert_weighs_one_by_itself) {
  Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {5, 0, 2, -1, 1});
  conversion.convert({.host = "glm4-moe", .gate_scale = "1", .score_scale = "2"});
  EXPECT_EQ(factor_in_down(conversion, "model.layers.0.mlp.experts.0.down_proj.weight"), 2);
}

TEST(ScoreScaleTest, powers_of_two_are_undone_and_others_keep_the_dense_matrix) {
  for (const char* scale : {"4", "1.7"}) {
    SCOPED_TRACE(scale);
    Conversion conversion(tiny_model("llama", {2, 16, 24, DType::bf16, 3}), {4, 1, 2, -1, 1});
    conversion.convert({.score_scale = scale, .shard_size = 6000});

    EXPECT_THAT(conversion.verify(), IsEmpty());
    EXPECT_EQ(std::filesystem::exists(conversion.output() / "moefy/originals.safetensors"),
              std::string(scale) == "1.7");
    conversion.restore();
    const Checkpoint restored = Checkpoint::open(conversion.restored());
    for (const TensorInfo& tensor : conversion.dense().tensors())
      EXPECT_EQ(bytes_of(restored, tensor.name), bytes_of(conversion.dense(), tensor.name))
          << tensor.name;
  }
}

TEST(ScoreScaleTest, calibrated_takes_each_layers_own) {
  Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {4, 0, 2, -1, 1});
  EXPECT_THROW((void)conversion.plan({.score_scale = "calibrated"}), UsageError);
  conversion.change_map([](ExpertMap& map) {
    map.layers[0].score_scale = 2;
    map.layers[1].score_scale = 0.75;
  });

  conversion.convert({.host = "mixtral", .score_scale = "calibrated"});

  EXPECT_THAT(conversion.verify(), IsEmpty());
  EXPECT_EQ(factor_in_down(conversion, "model.layers.0.block_sparse_moe.experts.0.w2.weight"), 4);
  const json manifest = json::parse(read_text(manifest_of_output(conversion.output())));
  EXPECT_EQ(manifest["score_scale"], json({2.0, 0.75}));
  EXPECT_THAT(manifest["originals"], ElementsAre("model.layers.1.mlp.down_proj.weight"));
}

ConversionSummary summary_of(const ConvertConfig& config) {
  const Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {4, 0, 2, -1, 1});
  return summarize(*conversion.plan(config));
}

TEST(ScoreScaleTest, what_all_experts_on_add_up_to_is_told) {
  for (const char* host : {"qwen2-moe", "mixtral", "glm4-moe", "llama-moe"}) {
    SCOPED_TRACE(host);
    EXPECT_EQ(up_to_score_scale(summary_of({.host = host})), "");
    EXPECT_EQ(up_to_score_scale(summary_of({.host = host, .score_scale = "3"})),
              ", up to a factor 3 of the routed experts (--score-scale)");
    // By default a softmax is multiplied by the number of experts.
    EXPECT_EQ(up_to_score_scale(summary_of({.host = host, .gate_scale = "1"})), "");
  }
  // A softmax over four experts times 3: each of them weighs 3/4.
  EXPECT_EQ(
      summary_of({.host = "mixtral", .gate_scale = "1", .score_scale = "3"}).largest_routed_scale,
      0.75);
  EXPECT_EQ(
      summary_of({.host = "glm4-moe", .gate_scale = "1", .score_scale = "3"}).largest_routed_scale,
      3);
  EXPECT_EQ(up_to_score_scale(summary_of({.host = "dense"})), "");
}

TEST(ScoreScaleTest, layers_may_differ) {
  Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {4, 0, 2, -1, 1});
  conversion.change_map([](ExpertMap& map) {
    map.layers[0].score_scale = 2;
    map.layers[1].score_scale = 0.75;
  });
  EXPECT_EQ(up_to_score_scale(summarize(*conversion.plan({.score_scale = "calibrated"}))),
            ", up to factors 0.75 to 2 of the routed experts (--score-scale)");
}

TEST(ScoreScaleTest, the_bound_of_what_is_stored_counts_the_scale) {
  Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {1, 0, 1, -1, 1});
  const ConvertConfig config{.host = "llama-moe", .score_scale = "3"};
  conversion.convert(config);
  const auto backend = make_reference_backend(1);

  const LayerCheck check = check_layer(*conversion.plan(config), conversion.dense(),
                                       Checkpoint::open(conversion.output()), 0, *backend, {});

  // The only expert is the dense layer, and weighs 3 in place of 1.
  EXPECT_NEAR(check.bound, 2, 1e-5);
  EXPECT_LT(check.difference, 1e-5);
}

TEST(ScoreScaleTest, a_value_that_overflows_is_named) {
  TinyModel model = tiny_model("llama", {1, 16, 24, DType::f16, 1});
  TinyTensor& down = model.at(kDown);
  const std::uint16_t large = float_to_half(30000);
  std::memcpy(down.bytes.data() + (2 * 24 + 5) * 2, &large, 2);
  Conversion conversion(std::move(model), {4, 0, 1, -1, 1});

  try {
    conversion.convert({.host = "mixtral", .score_scale = "3"});
    FAIL() << "30000 · 3 is above the largest f16";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("neuron 5: a weight times 3"));
  }
}

TEST(ScoreScaleTest, nonsense_is_refused) {
  for (const char* scale : {"0", "-1", "nan", "", "much"})
    EXPECT_THAT(ConvertConfig{.score_scale = scale}.validate(), Not(IsEmpty())) << scale;
  const Conversion conversion(tiny_model("llama", {}));
  EXPECT_THROW((void)conversion.plan({.host = "dense", .score_scale = "2"}), UsageError);
}

}  // namespace
}  // namespace moefy::test
