#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "sigmoid_recipe.hpp"

namespace moefy {

namespace {

/// Dots1ForCausalLM: sigmoid weights, always with q and k norms; dense layers only before the first
/// MoE one.
class Dots1Host final : public Host {
 public:
  std::string name() const override { return "dots1"; }
  std::string description() const override {
    return "Dots1ForCausalLM: any number of experts, shared ones and top-k (editable), dense "
           "layers at the beginning only; qwen3; not chosen by itself";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return true; }
  bool is_automatic(const Family&) const override { return false; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override { return sigmoid_reason(plan); }
  void build(ConversionPlan& plan, const Family& family) const override;
};

Obstacles Dots1Host::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities = sigmoid_abilities();
  abilities.biases = Abilities::Biases::whole_attention;
  abilities.qk_norms = Abilities::Norms::required;
  abilities.dense_layers = Abilities::DenseLayers::first;
  return sigmoid_obstacles(abilities, plan, family);
}

void Dots1Host::build(ConversionPlan& plan, const Family& family) const {
  using Json = nlohmann::ordered_json;
  build_sigmoid_layers(plan, family);
  Json config = Json::parse(sigmoid_config(plan, family, "Dots1ForCausalLM", "dots1"));
  config["n_routed_experts"] = plan.shape.num_experts;
  config["n_shared_experts"] = plan.shape.num_shared;
  config["first_k_dense_replace"] = leading_dense_layers(plan);
  config["attention_bias"] = family.qkv_bias;
  // The class' own default is a window in layers from the 62nd on.
  config["sliding_window"] = Json();
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_dots1_host() { return std::make_unique<Dots1Host>(); }

}  // namespace moefy
