// Host llama-moe: the layout and config.json of LLaMA-MoE's own classes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "conversion.hpp"
#include "moefy/core/error.hpp"

namespace moefy::test {
namespace {

using nlohmann::json;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kMlp = "model.layers.0.mlp.";

json config_of(const Conversion& conversion) {
  return json::parse(read_text(conversion.output() / "config.json"));
}

void set_labels(Conversion& conversion, const std::vector<std::int32_t>& labels,
                std::size_t experts, std::size_t shared = 0) {
  conversion.change_map([&](ExpertMap& map) {
    for (LayerResult& layer : map.layers)
      layer.partition = Partition::from_labels(labels, experts, shared);
  });
}

/// Gives every router a second layer.
void deepen_routers(ExpertMap& map) {
  for (LayerResult& layer : map.layers) {
    const std::size_t experts = layer.router.weight.rows();
    layer.router.kind = "mlp-topk";
    layer.router.output.resize(experts, experts);
    for (std::size_t i = 0; i < experts * experts; ++i)
      layer.router.output.values()[i] = static_cast<float>(i) + 1;
  }
}

void expect_restored(const Conversion& conversion) {
  conversion.restore();
  const Checkpoint restored = Checkpoint::open(conversion.restored());
  EXPECT_EQ(restored.config_text(), conversion.dense().config_text());
  for (const TensorInfo& tensor : conversion.dense().tensors())
    EXPECT_EQ(bytes_of(restored, tensor.name), bytes_of(conversion.dense(), tensor.name))
        << tensor.name;
}

TEST(LlamaMoeTest, has_the_experts_and_a_linear_gate_under_its_names) {
  Conversion conversion(small_llama(), {2, 0, 1, -1, 1});
  set_labels(conversion, {0, 1, 1, 0}, 2);

  conversion.convert({.host = "llama-moe", .align = 1});

  const Checkpoint made = Checkpoint::open(conversion.output());
  const std::string experts = std::string(kMlp) + "calculator.experts.";
  EXPECT_THAT(values_of(made, experts + "weight_gate.0"), ElementsAre(1, 0, 1, -1));
  EXPECT_THAT(values_of(made, experts + "weight_up.1"), ElementsAre(2, 0, 0, 1));
  EXPECT_THAT(values_of(made, experts + "weight_down.0"), ElementsAre(1, 2, 0, 1));
  const auto rows = conversion.map().layers[0].router.weight.values();
  EXPECT_EQ(values_of(made, std::string(kMlp) + "gate.gate_network.weight"),
            std::vector<float>(rows.begin(), rows.end()));
  EXPECT_THAT(values_of(made, std::string(kMlp) + "gate.weight_noise.weight"), Each(0.0F));
  EXPECT_THAT(conversion.verify(), IsEmpty());
  expect_restored(conversion);
}

TEST(LlamaMoeTest, config_says_what_the_gate_is) {
  Conversion conversion(small_llama(), {2, 0, 1, -1, 1});

  conversion.convert({.host = "llama-moe", .align = 1});

  const json config = config_of(conversion);
  EXPECT_EQ(config["architectures"], json({"LlamaMoEForCausalLM"}));
  EXPECT_EQ(config["model_type"], "llama_moe");
  EXPECT_EQ(config["num_experts"], 2);
  EXPECT_EQ(config["num_selects"], 1);
  EXPECT_EQ(config["size_experts"], json({{2, 2}, {2, 2}}));
  EXPECT_EQ(config["intermediate_size"], 4);
  EXPECT_EQ(config["gate_network"], "linear");
  EXPECT_EQ(config["multiply_gate_scores"], false);
  EXPECT_EQ(config["score_scale_factor"], 1.0);
  EXPECT_FALSE(config.contains("num_experts_residual"));
  EXPECT_FALSE(config.contains("rope_parameters"));
}

TEST(LlamaMoeTest, a_softmax_is_multiplied_by_the_number_of_experts) {
  Conversion conversion(small_llama(), {2, 0, 1, -1, 1});
  conversion.convert({.host = "llama-moe", .gate_scale = "1"});

  const json config = config_of(conversion);
  EXPECT_EQ(config["multiply_gate_scores"], true);
  EXPECT_EQ(config["score_scale_factor"], 2.0);
  EXPECT_THAT(conversion.verify(), IsEmpty());
}

TEST(LlamaMoeTest, scales_of_the_layers_become_a_list_or_go_into_down) {
  Conversion softmax(small_llama(), {2, 0, 1, -1, 1});
  Conversion unit(small_llama(), {2, 0, 1, -1, 1});
  for (Conversion* conversion : {&softmax, &unit})
    conversion->change_map([](ExpertMap& map) {
      map.layers[0].score_scale = 1.5;
      map.layers[1].score_scale = 4;
    });

  softmax.convert({.host = "llama-moe", .gate_scale = "1", .score_scale = "calibrated"});
  unit.convert({.host = "llama-moe", .score_scale = "calibrated"});

  // Measured beside weights of one; the softmax over one chosen expert is one.
  EXPECT_EQ(config_of(softmax)["score_scale_factor"], json({1.5, 4.0}));
  EXPECT_EQ(config_of(unit)["score_scale_factor"], 1.0);
  for (Conversion* conversion : {&softmax, &unit}) {
    EXPECT_THAT(conversion->verify(), IsEmpty());
    expect_restored(*conversion);
  }
}

TEST(LlamaMoeTest, shared_experts_are_residual_ones_of_weight_one) {
  Conversion conversion(small_llama(), {2, 2, 1, -1, 1});
  set_labels(conversion, {-1, 1, 0, -1}, 2, 2);

  conversion.convert({.host = "llama-moe", .align = 1});

  const Checkpoint made = Checkpoint::open(conversion.output());
  const std::string residual = std::string(kMlp) + "residual_block.";
  EXPECT_THAT(values_of(made, residual + "calculator.experts.weight_gate.0"), ElementsAre(1, 0));
  EXPECT_THAT(values_of(made, residual + "calculator.experts.weight_down.1"), ElementsAre(2, 1));
  EXPECT_THAT(values_of(made, residual + "gate.gate_network.weight"), Each(0.0F));
  EXPECT_THAT(values_of(made, std::string(kMlp) + "moe_layer.calculator.experts.weight_gate.0"),
              ElementsAre(1, 1));
  const json config = config_of(conversion);
  EXPECT_EQ(config["architectures"], json({"LlamaMoEResidualForCausalLM"}));
  EXPECT_EQ(config["model_type"], "llama_moe_residual");
  EXPECT_EQ(config["num_experts_residual"], 2);
  EXPECT_EQ(config["size_experts_residual"], json({1, 1}));
  EXPECT_EQ(config["intermediate_size_moe"], 2);
  EXPECT_EQ(config["intermediate_size_residual"], 2);
  EXPECT_EQ(config["intermediate_size"], 4);
  EXPECT_EQ(config["score_scale_factor_residual"], 2.0);
  EXPECT_THAT(conversion.verify(), IsEmpty());
  expect_restored(conversion);
}

TEST(LlamaMoeTest, routers_of_two_layers_become_its_mlp_gate) {
  Conversion conversion(tiny_model("llama", {2, 16, 24, DType::f32, 3}), {4, 1, 2, -1, 1});
  conversion.change_map(deepen_routers);

  conversion.convert({.host = "llama-moe"});

  const Checkpoint made = Checkpoint::open(conversion.output());
  const std::string gate = std::string(kMlp) + "moe_layer.gate.gate_network.";
  const RouterWeights& router = conversion.map().layers[0].router;
  double squares = 0;
  for (const float value :
       values_of(conversion.dense(), "model.layers.0.post_attention_layernorm.weight"))
    squares += static_cast<double>(value) * static_cast<double>(value);
  EXPECT_NEAR(values_of(made, gate + "0.weight")[3],
              static_cast<double>(router.weight.values()[3]) / std::sqrt(squares), 1e-6);
  EXPECT_EQ(values_of(made, gate + "2.weight")[5], 6);
  EXPECT_EQ(config_of(conversion)["gate_network"], "mlp");
  EXPECT_THAT(conversion.verify(), IsEmpty());
  expect_restored(conversion);
}

TEST(LlamaMoeTest, widths_may_differ_or_are_filled_up) {
  for (const char* uneven : {"ragged", "pad"}) {
    SCOPED_TRACE(uneven);
    Conversion conversion(small_llama(), {2, 0, 1, -1, 1});
    set_labels(conversion, {0, 1, 0, 0}, 2);

    conversion.convert({.host = "llama-moe", .align = 1, .uneven = uneven});

    EXPECT_EQ(config_of(conversion)["size_experts"][1],
              std::string(uneven) == "ragged" ? json({3, 1}) : json({3, 3}));
    EXPECT_THAT(conversion.verify(), IsEmpty());
    expect_restored(conversion);
  }
}

TEST(LlamaMoeTest, experts_may_share_neurons) {
  Conversion conversion(small_llama(), {2, 1, 1, -1, 1});
  conversion.change_map([](ExpertMap& map) {
    for (LayerResult& layer : map.layers) {
      layer.partition = {};
      layer.sharing =
          NeuronLists::from_lists(4, std::vector<std::vector<std::int32_t>>{{0, 2}, {2, 3}},
                                  std::vector<std::vector<std::int32_t>>{{1}});
    }
  });

  conversion.convert({.host = "llama-moe", .align = 1});

  EXPECT_THAT(conversion.verify(), IsEmpty());
  expect_restored(conversion);
}

std::string refusal(const std::string& family, const ConvertConfig& config, bool deep = false) {
  Conversion conversion(tiny_model(family, {}), {4, 0, 2, -1, 1});
  if (deep) conversion.change_map(deepen_routers);
  try {
    (void)conversion.plan(config);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(LlamaMoeTest, is_never_chosen_and_never_proposed_as_a_stock_class) {
  EXPECT_THAT(refusal("llama", {}, true),
              testing::AllOf(HasSubstr("--host llama-moe has two layers, and no stock class"),
                             Not(HasSubstr("asked for by name works"))));
  EXPECT_THAT(host_description("llama-moe"), HasSubstr("its own classes"));
}

TEST(LlamaMoeTest, refuses_what_its_classes_do_not_have) {
  EXPECT_THAT(refusal("qwen3", {.host = "llama-moe"}), HasSubstr("q and k norms"));
  EXPECT_THAT(refusal("llama", {.host = "llama-moe", .layout = "fused"}), HasSubstr("fused"));
  EXPECT_THAT(refusal("llama", {.host = "llama-moe", .gate_scale = "2^-8"}),
              HasSubstr("--gate-scale auto"));
}

}  // namespace
}  // namespace moefy::test
