#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "sigmoid_recipe.hpp"

namespace moefy {

namespace {

/// SolarOpenForCausalLM: glm4-moe without q and k norms, partial rotary embeddings and dense
/// layers.
class SolarOpenHost final : public Host {
 public:
  std::string name() const override { return "solar-open"; }
  std::string description() const override {
    return "SolarOpenForCausalLM: any number of experts, shared ones and top-k (editable), every "
           "layer; llama, mistral without window, qwen2; not chosen by itself";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return true; }
  bool is_automatic(const Family&) const override { return false; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override { return sigmoid_reason(plan); }
  void build(ConversionPlan& plan, const Family& family) const override;
};

Obstacles SolarOpenHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities = sigmoid_abilities();
  abilities.biases = Abilities::Biases::query_key_value;
  return sigmoid_obstacles(abilities, plan, family);
}

void SolarOpenHost::build(ConversionPlan& plan, const Family& family) const {
  build_sigmoid_layers(plan, family);
  auto config = nlohmann::ordered_json::parse(
      sigmoid_config(plan, family, "SolarOpenForCausalLM", "solar_open"));
  config["n_routed_experts"] = plan.shape.num_experts;
  config["n_shared_experts"] = plan.shape.num_shared;
  config["attention_bias"] = family.qkv_bias;
  config["num_nextn_predict_layers"] = 0;
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_solar_open_host() { return std::make_unique<SolarOpenHost>(); }

}  // namespace moefy
