#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "sigmoid_recipe.hpp"

namespace moefy {

namespace {

/// Glm4MoeForCausalLM: sigmoid weights; dense layers only before the first MoE one.
class Glm4MoeHost final : public Host {
 public:
  std::string name() const override { return "glm4-moe"; }
  std::string description() const override {
    return "Glm4MoeForCausalLM: any number of experts, shared ones and top-k (editable), dense "
           "layers at the beginning only; llama, mistral without window, qwen2, qwen3, phi3";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return true; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override { return sigmoid_reason(plan); }
  void build(ConversionPlan& plan, const Family& family) const override;
};

Obstacles Glm4MoeHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities = sigmoid_abilities();
  abilities.biases = Abilities::Biases::query_key_value;
  abilities.qk_norms = Abilities::Norms::optional;
  abilities.dense_layers = Abilities::DenseLayers::first;
  abilities.partial_rotary = true;
  abilities.split_qkv = true;
  return sigmoid_obstacles(abilities, plan, family);
}

void Glm4MoeHost::build(ConversionPlan& plan, const Family& family) const {
  build_sigmoid_layers(plan, family);
  auto config =
      nlohmann::ordered_json::parse(sigmoid_config(plan, family, "Glm4MoeForCausalLM", "glm4_moe"));
  config["n_routed_experts"] = plan.shape.num_experts;
  config["n_shared_experts"] = plan.shape.num_shared;
  config["first_k_dense_replace"] = leading_dense_layers(plan);
  config["attention_bias"] = family.qkv_bias;
  config["use_qk_norm"] = family.qk_norm;
  config["num_nextn_predict_layers"] = 0;
  // Readers differ in where they look for it, and the class' own default is one half.
  config["partial_rotary_factor"] = family.partial_rotary;
  if (config.contains("rope_parameters") && config["rope_parameters"].is_object())
    config["rope_parameters"]["partial_rotary_factor"] = family.partial_rotary;
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_glm4_moe_host() { return std::make_unique<Glm4MoeHost>(); }

}  // namespace moefy
