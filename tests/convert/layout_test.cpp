#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conversion.hpp"
#include "moefy/core/error.hpp"

namespace moefy::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A map of the small model with labels written by hand for both layers.
std::shared_ptr<ExpertMap> map_with_labels(const Conversion& conversion,
                                           const std::vector<std::vector<std::int32_t>>& labels) {
  auto map = std::make_shared<ExpertMap>(
      random_map(conversion.dense(), conversion.layers(), {2, 0, 0, -1, 1}));
  for (std::size_t layer = 0; layer < labels.size(); ++layer)
    map->layers[layer].partition = Partition::from_labels(labels[layer], 2, 0);
  return map;
}

/// Writes the whole output of a plan with one shard.
Checkpoint write(const Conversion& conversion, const ConversionPlan& plan) {
  std::filesystem::create_directories(conversion.output());
  ThreadPool pool(1);
  write_shard(plan, conversion.dense(), 0, conversion.output(), pool, {});
  write_metadata(plan, conversion.dense(), conversion.map_file(), conversion.output());
  return Checkpoint::open(conversion.output());
}

json config_of(const Conversion& conversion) {
  return json::parse(read_text(conversion.output() / "config.json"));
}

TEST(LayoutTest, takes_each_layer_from_its_own_weights) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});
  const auto map = map_with_labels(conversion, {{0, 1, 1, 0}, {1, 1, 0, 0}});
  const auto plan = plan_conversion(conversion.dense(), conversion.layers(), map, {.align = 1});

  const Checkpoint made = write(conversion, *plan);

  // Expert 0 of layer 0: neurons 0 and 3. Down carries the factor E = 2.
  const std::string first = "model.layers.0.mlp.experts.";
  EXPECT_THAT(values_of(made, first + "0.gate_proj.weight"), ElementsAre(1, 0, 1, -1));
  EXPECT_THAT(values_of(made, first + "0.up_proj.weight"), ElementsAre(1, 1, 1, 0));
  EXPECT_THAT(values_of(made, first + "0.down_proj.weight"), ElementsAre(2, 4, 0, 2));
  EXPECT_THAT(values_of(made, first + "1.gate_proj.weight"), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(values_of(made, first + "1.down_proj.weight"), ElementsAre(0, 2, 2, -2));
  // Expert 0 of layer 1: neurons 2 and 3, of that layer's own weights.
  const std::string second = "model.layers.1.mlp.experts.";
  EXPECT_THAT(values_of(made, second + "0.gate_proj.weight"), ElementsAre(11, 11, 11, 9));
  EXPECT_THAT(values_of(made, second + "0.down_proj.weight"), ElementsAre(22, 24, 18, 22));
  EXPECT_THAT(values_of(made, second + "1.up_proj.weight"), ElementsAre(11, 11, 12, 10));
}

TEST(LayoutTest, pads_with_zero_neurons_to_the_alignment) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});
  const auto map = map_with_labels(conversion, {{0, 1, 1, 0}, {1, 1, 1, 0}});
  const auto plan = plan_conversion(conversion.dense(), conversion.layers(), map, {.align = 4});

  const Checkpoint made = write(conversion, *plan);

  EXPECT_THAT(values_of(made, "model.layers.0.mlp.experts.0.gate_proj.weight"),
              ElementsAre(1, 0, 1, -1, 0, 0, 0, 0));
  EXPECT_THAT(values_of(made, "model.layers.0.mlp.experts.0.down_proj.weight"),
              ElementsAre(2, 4, 0, 0, 0, 2, 0, 0));
  EXPECT_THAT(values_of(made, "model.layers.1.mlp.experts.0.gate_proj.weight"),
              ElementsAre(11, 9, 0, 0, 0, 0, 0, 0));
  EXPECT_EQ(config_of(conversion)["moe_intermediate_size"], 4);
}

TEST(LayoutTest, dense_host_orders_neurons_by_expert) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});
  const auto map = map_with_labels(conversion, {{0, 1, 1, 0}, {0, 0, 1, 1}});
  const auto plan =
      plan_conversion(conversion.dense(), conversion.layers(), map, {.host = "dense"});

  const Checkpoint made = write(conversion, *plan);

  EXPECT_THAT(values_of(made, "model.layers.0.mlp.gate_proj.weight"),
              ElementsAre(1, 0, 1, -1, 0, 1, 1, 1));
  EXPECT_THAT(values_of(made, "model.layers.0.mlp.down_proj.weight"),
              ElementsAre(1, 2, 0, 1, 0, 1, 1, -1));
  EXPECT_EQ(read_text(conversion.output() / "config.json"), conversion.dense().config_text());
}

TEST(LayoutTest, shared_expert_stands_beside_the_routed_ones) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});
  auto map = map_with_labels(conversion, {});
  for (LayerResult& layer : map->layers)
    layer.partition = Partition::from_labels({0, kSharedLabel, kSharedLabel, 1}, 2, 1);
  const auto plan = plan_conversion(conversion.dense(), conversion.layers(), map, {.align = 2});

  const Checkpoint made = write(conversion, *plan);

  const std::string shared = "model.layers.0.mlp.shared_expert";
  EXPECT_THAT(values_of(made, shared + ".gate_proj.weight"), ElementsAre(0, 1, 1, 1));
  // sigmoid(0) = 1/2, so down carries 2.
  EXPECT_THAT(values_of(made, shared + ".down_proj.weight"), ElementsAre(0, 2, 2, -2));
  EXPECT_THAT(values_of(made, shared + "_gate.weight"), ElementsAre(0x1p-20f, 0x1p-20f));
  EXPECT_EQ(config_of(conversion)["shared_expert_intermediate_size"], 2);
}

TEST(LayoutTest, nothing_shared_becomes_a_zero_expert) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});

  conversion.convert();

  const Checkpoint made = Checkpoint::open(conversion.output());
  EXPECT_THAT(values_of(made, "model.layers.0.mlp.shared_expert.up_proj.weight"),
              testing::AllOf(testing::SizeIs(16), testing::Each(0.0f)));
  EXPECT_EQ(config_of(conversion)["shared_expert_intermediate_size"], 8);
}

TEST(LayoutTest, gate_scale_brings_the_logits_to_two_to_the_minus_ten) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});
  auto map = map_with_labels(conversion, {});
  map->layers[0].router.logit_std = 4;     // m = 12
  map->layers[1].router.logit_std = 0.26;  // nearest power: 2^-2, m = 8
  const auto plan = plan_conversion(conversion.dense(), conversion.layers(), map, {});

  const Checkpoint made = write(conversion, *plan);

  EXPECT_EQ(values_of(made, "model.layers.0.mlp.gate.weight")[0],
            map->layers[0].router.weight.values()[0] * 0x1p-12f);
  EXPECT_EQ(values_of(made, "model.layers.1.mlp.gate.weight")[3],
            map->layers[1].router.weight.values()[3] * 0x1p-8f);
  const json manifest = json::parse(read_text(manifest_of_output(conversion.output())));
  EXPECT_EQ(manifest["gate_scale_log2"], json({-12, -8}));
}

TEST(LayoutTest, counts_parameters) {
  // 2 layers of 3·16·24 FFN values in 4 experts of 6, padded to 8.
  Conversion conversion(tiny_model("llama", {}), {4, 0, 2, -1, 1});

  const ConversionSummary summary = summarize(*conversion.plan({}));

  EXPECT_EQ(summary.parameters_before, parameter_count(conversion.dense()));
  EXPECT_EQ(summary.parameters_in_experts, 2u * 3 * 16 * 4 * 8);
  EXPECT_EQ(summary.parameters_after - summary.parameters_active, 2u * 3 * 16 * 2 * 8);
  const std::uint64_t routers = 2 * 4 * 16;
  const std::uint64_t zero_shared = 2 * (3 * 16 * 8 + 16);
  const std::uint64_t padding = 2 * 3 * 16 * 4 * 2;
  EXPECT_EQ(summary.parameters_after, summary.parameters_before + routers + zero_shared + padding);
}

TEST(LayoutTest, overflow_of_the_scaled_weights_is_an_error) {
  TinyModel model = tiny_model("llama", {1, 16, 24, DType::f16, 1});
  TinyTensor& down = model.at("model.layers.0.mlp.down_proj.weight");
  const std::uint16_t large = float_to_half(30000);
  // Row 2, neuron 5.
  std::memcpy(down.bytes.data() + (2 * 24 + 5) * 2, &large, 2);
  Conversion conversion(std::move(model), {4, 0, 0, -1, 1});

  try {
    conversion.convert();
    FAIL() << "30000 · 4 is above the largest f16";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("down_proj"), HasSubstr("neuron 5")));
  }
}

TEST(LayoutTest, changed_weights_are_refused) {
  Conversion conversion(tiny_model("llama", {}));
  flip_bit(conversion.dense(), "model.layers.1.mlp.up_proj.weight", 7);

  try {
    conversion.convert();
    FAIL() << "the fingerprint of layer 1 differs";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("model.layers.1.mlp"));
  }
}

}  // namespace
}  // namespace moefy::test
