#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "conversion.hpp"
#include "moefy/core/error.hpp"

namespace moefy::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// A tiny model with some keys of config.json changed.
TinyModel model_with(const std::string& family, const json& changes) {
  TinyModel model = tiny_model(family, {});
  json config = json::parse(model.config);
  config.update(changes);
  model.config = config.dump();
  return model;
}

std::string refusal(TinyModel model, const MapShape& shape, const ConvertConfig& config = {}) {
  const Conversion conversion(std::move(model), shape);
  try {
    conversion.plan(config);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

json planned_config(TinyModel model, const MapShape& shape, const ConvertConfig& config = {}) {
  Conversion conversion(std::move(model), shape);
  conversion.convert(config);
  return json::parse(read_text(conversion.output() / "config.json"));
}

/// A Llama with attention_bias.
TinyModel biased_llama() {
  TinyModel model = tiny_model("llama", {});
  for (const char* name : {"q", "k", "v", "o"})
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix =
          "model.layers." + std::to_string(layer) + ".self_attn." + name + "_proj.";
      const std::int64_t rows = model.at(prefix + "weight").shape[0];
      model.tensors.push_back(random_tensor(prefix + "bias", DType::f32, {rows}));
    }
  return model;
}

struct Choice {
  std::string family;
  MapShape shape;
  std::string host;
  bool editable = false;
};

void PrintTo(const Choice& choice, std::ostream* out) {
  *out << choice.family << " " << choice.shape.experts << " " << choice.shape.shared << " "
       << choice.shape.top_k;
}

class HostChoiceTest : public testing::TestWithParam<Choice> {};

TEST_P(HostChoiceTest, takes_the_first_host_that_can) {
  const Choice& choice = GetParam();
  const Conversion conversion(tiny_model(choice.family, {}), choice.shape);

  const ConversionSummary summary = summarize(*conversion.plan({}));

  EXPECT_EQ(summary.host, choice.host);
  EXPECT_EQ(summary.top_k_editable, choice.editable);
  EXPECT_FALSE(summary.host_reason.empty());
}

INSTANTIATE_TEST_SUITE_P(Rules, HostChoiceTest,
                         testing::Values(Choice{"llama", {4, 0, 3, -1, 1}, "qwen2-moe", true},
                                         Choice{"llama", {4, 1, 3, -1, 1}, "qwen2-moe", true},
                                         Choice{"llama", {4, 1, 3, 0, 1}, "qwen2-moe", true},
                                         Choice{"llama", {6, 0, 2, -1, 1}, "glm4-moe", true},
                                         Choice{"llama", {6, 0, 2, 1, 1}, "glm4-moe", true},
                                         Choice{"llama", {6, 0, 2, 0, 1}, "qwen2-moe", false},
                                         Choice{"llama", {5, 2, 3, -1, 1}, "glm4-moe", true},
                                         Choice{"mistral", {6, 0, 2, -1, 1}, "mixtral", false},
                                         Choice{"mistral", {5, 1, 4, -1, 1}, "qwen2-moe", false},
                                         Choice{"qwen2", {6, 0, 2, -1, 1}, "glm4-moe", true},
                                         Choice{"qwen3", {4, 0, 3, -1, 1}, "qwen3-moe", true},
                                         Choice{"qwen3", {4, 1, 3, -1, 1}, "glm4-moe", true},
                                         Choice{"gemma", {4, 0, 4, -1, 1}, "granitemoe", false},
                                         Choice{"gemma", {4, 1, 2, -1, 1}, "granitemoeshared"},
                                         Choice{"granite", {5, 0, 2, -1, 1}, "granitemoe"},
                                         Choice{"granite", {5, 2, 2, -1, 1}, "granitemoeshared"}));

TEST(HostTest, default_top_k_is_the_maps_else_all) {
  const Conversion with(tiny_model("llama", {}), {4, 0, 3, -1, 1});
  const Conversion without(tiny_model("llama", {}), {4, 0, 0, -1, 1});

  EXPECT_EQ(summarize(*with.plan({})).top_k, 3);
  EXPECT_EQ(summarize(*with.plan({.top_k = 1})).top_k, 1);
  EXPECT_EQ(summarize(*without.plan({})).top_k, 4);
}

TEST(HostTest, counts_that_fit_no_host_are_refused_with_the_nearest) {
  EXPECT_THAT(refusal(tiny_model("mistral", {}), {6, 1, 3, -1, 1}),
              AllOf(HasSubstr("6 is no power of two"), HasSubstr("3 is no power of two"),
                    HasSubstr("--top-k 2"), HasSubstr("--experts 4"), HasSubstr("--host dense")));
}

TEST(HostTest, top_k_above_the_experts_is_refused) {
  EXPECT_THAT(refusal(tiny_model("llama", {}), {4, 0, 0, -1, 1}, {.top_k = 5}),
              HasSubstr("--top-k 5"));
}

TEST(HostTest, families_without_a_host_are_refused_with_the_reason) {
  const MapShape shape{4, 0, 0, -1, 1};
  EXPECT_THAT(refusal(tiny_model("gemma2", {}), shape),
              AllOf(HasSubstr("soft caps"), HasSubstr("--host dense")));
  EXPECT_THAT(refusal(tiny_model("gpt2", {}), shape), HasSubstr("--host dense"));
}

TEST(HostTest, what_a_host_would_drop_is_refused) {
  const MapShape shape{4, 0, 0, -1, 1};
  ConvertConfig qwen2;
  qwen2.host = "qwen2-moe";
  EXPECT_THAT(refusal(biased_llama(), shape, qwen2), HasSubstr("o_proj has no bias"));
  EXPECT_THAT(refusal(tiny_model("granite", {}), shape, qwen2), HasSubstr("multipliers"));
  EXPECT_THAT(refusal(model_with("llama", {{"partial_rotary_factor", 0.75}}), shape, qwen2),
              HasSubstr("rotates whole heads"));
  EXPECT_THAT(refusal(model_with("llama", {{"rope_scaling", {{"rope_type", "longrope"}}}}), shape),
              HasSubstr("longrope"));
  EXPECT_THAT(refusal(model_with("llama", {{"logits_scaling", 8.0}}), shape),
              HasSubstr("logits_scaling"));
}

TEST(HostTest, mixtral_refuses_what_it_has_no_place_for) {
  ConvertConfig mixtral;
  mixtral.host = "mixtral";
  EXPECT_THAT(refusal(tiny_model("qwen2", {}), {4, 0, 0, -1, 1}, mixtral), HasSubstr("biases"));
  EXPECT_THAT(refusal(tiny_model("llama", {}), {4, 1, 0, -1, 1}, mixtral), HasSubstr("shared"));
  EXPECT_THAT(refusal(tiny_model("llama", {}), {4, 0, 0, 1, 1}, mixtral), HasSubstr("dense"));
  EXPECT_THAT(refusal(tiny_model("llama", {}), {4, 0, 3, -1, 1}, mixtral),
              AllOf(HasSubstr("3 is no power of two"), HasSubstr("--top-k 2")));
}

TEST(HostTest, a_selection_bias_goes_where_there_is_a_place_for_it) {
  const Conversion conversion(tiny_model("llama", {}));
  auto map = std::make_shared<ExpertMap>(random_map(conversion.dense(), conversion.layers(), {}));
  map->layers[1].router.bias.assign(4, 1.0f);
  const auto plan = [&](const char* host) {
    ConvertConfig config;
    config.host = host;
    return plan_conversion(conversion.dense(), conversion.layers(), map, config);
  };

  EXPECT_EQ(summarize(*plan("auto")).host, "glm4-moe");
  EXPECT_THROW(plan("qwen2-moe"), UsageError);
  EXPECT_THROW(plan("mixtral"), UsageError);
}

TEST(HostTest, a_selection_bias_is_scaled_by_a_quarter_of_the_gate_scale) {
  // 2^-12 on the router's rows and 2^-14 on the bias: the sigmoid's slope at 0 is one quarter.
  const Conversion conversion(tiny_model("llama", {}));
  auto map = std::make_shared<ExpertMap>(random_map(conversion.dense(), conversion.layers(), {}));
  map->layers[1].router.bias = {1.0f, -2.0f, 0.0f, 0.5f};
  ConvertConfig config;
  config.host = "glm4-moe";
  config.gate_scale = "2^-12";
  const auto plan = plan_conversion(conversion.dense(), conversion.layers(), map, config);
  const TempDir dir;
  ThreadPool pool(1);
  write_expert_map(dir / "map.h5", *map);
  write_shard(*plan, conversion.dense(), 0, dir.path(), pool, {});
  write_metadata(*plan, conversion.dense(), dir / "map.h5", dir.path());
  const Checkpoint written = Checkpoint::open(dir.path());

  const std::string name = ".mlp.gate.e_score_correction_bias";
  const float unit = 1.0f / (1 << 14);
  EXPECT_EQ(values_of(written, "model.layers.1" + name),
            (std::vector<float>{unit, -2 * unit, 0, unit / 2}));
  EXPECT_EQ(values_of(written, "model.layers.0" + name), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(written.at("model.layers.0" + name).dtype, DType::f32);
}

TEST(HostTest, glm4_moe_takes_dense_layers_only_at_the_beginning) {
  ConvertConfig glm;
  glm.host = "glm4-moe";
  EXPECT_THAT(refusal(tiny_model("llama", {}), {4, 0, 0, 0, 1}, glm), HasSubstr("dense layers"));
  const Conversion conversion(tiny_model("llama", {}), {4, 0, 2, 1, 1});
  const auto plan = conversion.plan(glm);
  EXPECT_TRUE(summarize(*plan).top_k_editable);
}

TEST(HostTest, biases_on_all_of_the_attention_go_to_granites_classes) {
  const json config = planned_config(biased_llama(), {4, 0, 2, -1, 1});
  EXPECT_EQ(config["model_type"], "granitemoe");
  EXPECT_EQ(config["attention_bias"], true);
  // Without them it would be 1: the head dimension is 8.
  EXPECT_EQ(config["attention_multiplier"], std::pow(8.0, -0.5));
  EXPECT_EQ(config["embedding_multiplier"], 1.0);
  EXPECT_EQ(planned_config(tiny_model("gemma", {}), {4, 0, 2, -1, 1})["embedding_multiplier"], 4.0);
}

TEST(HostTest, granites_multipliers_are_copied) {
  const json values = {{"embedding_multiplier", 12.0},
                       {"residual_multiplier", 0.22},
                       {"attention_multiplier", 0.0078125},
                       {"logits_scaling", 16.0}};
  const json config = planned_config(model_with("granite", values), {4, 1, 2, -1, 1});
  for (const auto& [key, value] : values.items()) EXPECT_EQ(config[key], value) << key;
  EXPECT_EQ(config["shared_intermediate_size"], 8);
}

TEST(HostTest, granites_classes_need_a_factor_that_is_a_power_of_two) {
  EXPECT_THAT(refusal(tiny_model("granite", {}), {6, 1, 3, -1, 1}),
              AllOf(HasSubstr("3 is no power of two"), HasSubstr("--top-k 2 with this map"),
                    Not(HasSubstr("split --experts"))));
}

TEST(HostTest, the_nearest_counts_are_ones_that_a_host_carries) {
  ConvertConfig config;
  config.host = "granitemoe";
  EXPECT_THAT(refusal(tiny_model("granite", {}), {6, 2, 3, -1, 1}, config),
              HasSubstr("split --experts 8 without shared experts (host granitemoe, --top-k 2)"));
  config.host = "qwen3-moe";
  EXPECT_THAT(refusal(tiny_model("qwen3", {}), {7, 2, 3, -1, 1}, config),
              HasSubstr("split --experts 8 without shared experts (host qwen3-moe, any top-k)"));
  config.host = "dots1";
  EXPECT_THAT(refusal(tiny_model("qwen3", {}), {1, 1, 1, -1, 1}, config),
              AllOf(HasSubstr("there is one"), HasSubstr("split --experts 2 --shared 1")));
}

TEST(HostTest, hosts_that_are_not_automatic_are_named_where_they_alone_can) {
  // Shared experts, and layer 1 stays dense.
  EXPECT_THAT(refusal(tiny_model("qwen3", {}), {4, 1, 2, 0, 1}),
              HasSubstr("asked for by name works: --host exaone-moe"));
}

TEST(HostTest, glm4_moes_relatives_refuse_what_they_have_no_place_for) {
  const MapShape shape{5, 1, 3, -1, 1};
  const MapShape first_dense{5, 1, 3, 1, 1};
  const MapShape last_dense{5, 1, 3, 0, 1};
  const auto asked = [](TinyModel model, const MapShape& counts, const char* host) {
    ConvertConfig config;
    config.host = host;
    return refusal(std::move(model), counts, config);
  };
  EXPECT_THAT(asked(tiny_model("llama", {}), shape, "dots1"), HasSubstr("needs q and k norms"));
  EXPECT_THAT(asked(tiny_model("llama", {}), shape, "exaone-moe"), HasSubstr("q and k norms"));
  EXPECT_THAT(asked(tiny_model("qwen3", {}), shape, "solar-open"), HasSubstr("no q and k norms"));
  EXPECT_THAT(asked(tiny_model("llama", {}), first_dense, "solar-open"), HasSubstr("no dense"));
  EXPECT_THAT(asked(tiny_model("qwen3", {}), last_dense, "dots1"), HasSubstr("come first"));
  EXPECT_THAT(asked(tiny_model("mistral", {}), shape, "solar-open"), HasSubstr("sliding window"));
  EXPECT_THAT(asked(biased_llama(), shape, "solar-open"), HasSubstr("o_proj"));
  EXPECT_EQ(asked(tiny_model("qwen3", {}), first_dense, "dots1"), "");
  EXPECT_EQ(asked(tiny_model("qwen3", {}), last_dense, "exaone-moe"), "");
  EXPECT_EQ(asked(tiny_model("qwen2", {}), shape, "solar-open"), "");
}

TEST(HostTest, what_glm4_moes_relatives_default_to_is_written) {
  const auto asked = [](const char* family, const MapShape& shape, const char* host) {
    ConvertConfig config;
    config.host = host;
    return planned_config(tiny_model(family, {}), shape, config);
  };
  const json dots1 = asked("qwen3", {5, 0, 3, 1, 1}, "dots1");
  EXPECT_EQ(dots1["n_shared_experts"], 0);
  EXPECT_EQ(dots1["n_routed_experts"], 5);
  EXPECT_EQ(dots1["first_k_dense_replace"], 1);
  EXPECT_TRUE(dots1.at("sliding_window").is_null());
  const json exaone = asked("qwen3", {5, 1, 3, 0, 1}, "exaone-moe");
  EXPECT_EQ(exaone["layer_types"], json({"sliding_attention", "sliding_attention"}));
  EXPECT_EQ(exaone["sliding_window"], exaone["max_position_embeddings"]);
  EXPECT_EQ(exaone["mlp_layer_types"], json({"sparse", "dense"}));
  EXPECT_EQ(exaone["architectures"], json::array({"ExaoneMoeForCausalLM"}));
  EXPECT_EQ(exaone["routed_scaling_factor"], 2.0);
  const json solar = asked("llama", {5, 2, 3, -1, 1}, "solar-open");
  EXPECT_EQ(solar["head_dim"], 8);
  EXPECT_EQ(solar["norm_topk_prob"], false);
}

TEST(HostTest, uneven_experts_are_padded_or_refused) {
  // 24 neurons in 5 experts: 5, 5, 5, 5, 4.
  const MapShape shape{5, 0, 4, -1, 1};
  ConvertConfig config;
  config.uneven = "error";
  EXPECT_THAT(refusal(tiny_model("llama", {}), shape, config), HasSubstr("between 4 and 5"));
  config.uneven = "ragged";
  EXPECT_THAT(refusal(tiny_model("llama", {}), shape, config), HasSubstr("unequal width"));
  config.uneven = "pad";
  EXPECT_EQ(refusal(tiny_model("llama", {}), shape, config), "");
}

/// Two heads of 12 in a hidden state of 16, with config.json silent about it or saying null.
TinyModel wide_heads(const std::string& family, bool null) {
  TinyModel model = tiny_model(family, {});
  json config = json::parse(model.config);
  config["num_attention_heads"] = 2;
  config["num_key_value_heads"] = 1;
  config.erase("head_dim");
  if (null) config["head_dim"] = nullptr;
  model.config = config.dump();
  for (int layer = 0; layer < 2; ++layer) {
    const std::string attention = "model.layers." + std::to_string(layer) + ".self_attn.";
    const auto set = [&](const char* name, std::vector<std::int64_t> shape) {
      model.at(attention + name) = random_tensor(attention + name, DType::f32, std::move(shape));
    };
    set("q_proj.weight", {24, 16});
    set("k_proj.weight", {12, 16});
    set("v_proj.weight", {12, 16});
    set("o_proj.weight", {16, 24});
    if (family == "qwen3")
      for (const char* norm : {"q_norm.weight", "k_norm.weight"}) set(norm, {12});
  }
  return model;
}

TEST(HostTest, the_width_of_heads_is_read_off_the_tensors) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> hosts = {
      {"llama",
       {"qwen2-moe", "mixtral", "glm4-moe", "granitemoe", "granitemoeshared", "solar-open"}},
      {"qwen3", {"qwen3-moe", "dots1", "exaone-moe"}}};
  for (const auto& [family, names] : hosts)
    for (const std::string& host : names)
      for (const bool null : {false, true}) {
        SCOPED_TRACE(host);
        const json config = planned_config(wide_heads(family, null), {}, {.host = host});
        EXPECT_EQ(config["head_dim"], 12);
        EXPECT_EQ(config["num_key_value_heads"], 1);
      }
}

TEST(HostTest, a_width_of_heads_that_cannot_be_known_is_refused) {
  TinyModel model = wide_heads("llama", true);
  json config = json::parse(model.config);
  config["num_attention_heads"] = 5;
  model.config = config.dump();
  EXPECT_THAT(refusal(model, {}), HasSubstr("do not fit num_attention_heads"));
  config.erase("num_attention_heads");
  model.config = config.dump();
  EXPECT_THAT(refusal(model, {}), HasSubstr("no num_attention_heads"));
}

TEST(HostTest, both_spellings_of_rope_are_carried_as_they_are) {
  const json older = {{"rope_theta", 500.0},
                      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}}}};
  const json newer = {
      {"rope_parameters", {{"rope_type", "linear"}, {"rope_theta", 500.0}, {"factor", 4.0}}}};
  const std::vector<std::pair<std::string, std::vector<std::string>>> hosts = {
      {"llama", {"qwen2-moe", "mixtral", "glm4-moe", "granitemoe", "solar-open"}},
      {"qwen3", {"qwen3-moe", "dots1", "exaone-moe"}}};
  for (const auto& [family, names] : hosts)
    for (const std::string& host : names)
      for (const json& rope : {older, newer}) {
        SCOPED_TRACE(host);
        TinyModel model = tiny_model(family, {});
        json settings = json::parse(model.config);
        for (const char* key : {"rope_theta", "rope_scaling", "rope_parameters"})
          settings.erase(key);
        settings.update(rope);
        model.config = settings.dump();
        const json config = planned_config(std::move(model), {}, {.host = host});
        if (rope.contains("rope_theta")) {
          EXPECT_EQ(config["rope_theta"], 500.0);
          EXPECT_EQ(config["rope_scaling"], older["rope_scaling"]);
          continue;
        }
        for (const char* key : {"rope_type", "rope_theta", "factor"})
          EXPECT_EQ(config["rope_parameters"][key], newer["rope_parameters"][key]) << key;
      }
}

TEST(HostTest, sliding_window_is_carried) {
  const TinyModel mistral = model_with("mistral", {{"sliding_window", 7}});

  const json qwen = planned_config(mistral, {4, 0, 0, -1, 1});
  const json mixtral = planned_config(mistral, {4, 0, 0, -1, 1}, {.host = "mixtral"});

  EXPECT_EQ(qwen["use_sliding_window"], true);
  EXPECT_EQ(qwen["sliding_window"], 7);
  EXPECT_EQ(qwen["layer_types"], json({"sliding_attention", "sliding_attention"}));
  EXPECT_EQ(mixtral["sliding_window"], 7);
}

TEST(HostTest, qwen2_biases_are_switched_on) {
  EXPECT_EQ(planned_config(tiny_model("qwen2", {}), {})["qkv_bias"], true);
  EXPECT_EQ(planned_config(tiny_model("llama", {}), {})["qkv_bias"], false);
}

TEST(HostTest, dense_layers_are_listed) {
  EXPECT_EQ(planned_config(tiny_model("llama", {}), {4, 0, 0, 1, 1})["mlp_only_layers"],
            json::array({0}));
}

TEST(ConvertConfigTest, tells_all_problems_at_once) {
  ConvertConfig config;
  config.host = "mixtrall";
  config.gate_scale = "2^12";
  config.align = 0;
  config.uneven = "padded";

  const std::vector<std::string> problems = config.validate();

  ASSERT_EQ(problems.size(), 4u);
  EXPECT_THAT(problems[0], HasSubstr("mixtral"));
}

TEST(MapTest, of_another_model_is_refused) {
  const Conversion conversion(tiny_model("llama", {}));
  const Conversion other(tiny_model("llama", {3, 16, 24, DType::f32, 1}));
  auto map = std::make_shared<ExpertMap>(random_map(other.dense(), other.layers(), {}));

  EXPECT_THROW(plan_conversion(conversion.dense(), conversion.layers(), map, {}), InputError);
  EXPECT_THROW(check_map_belongs(conversion.dense(), *map, "map.h5"), InputError);
}

TEST(ManifestTest, differences_name_the_option) {
  const Conversion conversion(tiny_model("llama", {}));
  const std::string there = manifest_text(*conversion.plan({}), conversion.map_file());
  const std::string now = manifest_text(*conversion.plan({.top_k = 2}), conversion.map_file());

  EXPECT_TRUE(manifest_differences(there, there).empty());
  EXPECT_THAT(manifest_differences(there, now),
              testing::ElementsAre(HasSubstr("options.top_k: there 4, now 2")));
}

}  // namespace
}  // namespace moefy::test
