#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "sigmoid_recipe.hpp"

namespace moefy {

namespace {

/// ExaoneMoeForCausalLM: sigmoid weights, always with q and k norms; any layers may stay dense.
class ExaoneMoeHost final : public Host {
 public:
  std::string name() const override { return "exaone-moe"; }
  std::string description() const override {
    return "ExaoneMoeForCausalLM: any number of experts, shared ones and top-k (editable), dense "
           "layers beside; qwen3; not chosen by itself";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return true; }
  bool is_automatic(const Family&) const override { return false; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override { return sigmoid_reason(plan); }
  void build(ConversionPlan& plan, const Family& family) const override;
};

Obstacles ExaoneMoeHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities = sigmoid_abilities();
  abilities.qk_norms = Abilities::Norms::required;
  abilities.dense_layers = Abilities::DenseLayers::anywhere;
  return sigmoid_obstacles(abilities, plan, family);
}

void ExaoneMoeHost::build(ConversionPlan& plan, const Family& family) const {
  using Json = nlohmann::ordered_json;
  build_sigmoid_layers(plan, family, "e_score_correction_bias");
  Json config = Json::parse(sigmoid_config(plan, family, "ExaoneMoeForCausalLM", "exaone_moe"));
  config["num_experts"] = plan.shape.num_experts;
  config["num_shared_experts"] = plan.shape.num_shared;
  // Less exact than the list, for readers that know only it.
  if (const std::int64_t first = leading_dense_layers(plan); first >= 0)
    config["first_k_dense_replace"] = first;
  Json mlp_types = Json::array();
  for (const LayerResult* result : plan.results) mlp_types.push_back(result ? "sparse" : "dense");
  config["mlp_layer_types"] = std::move(mlp_types);
  // Layers with full attention have no rotary embeddings in this class; a window as long as the
  // longest text is full attention that has them.
  config["sliding_window"] = config["max_position_embeddings"];
  config["layer_types"] =
      std::vector<std::string>(static_cast<std::size_t>(family.num_layers), "sliding_attention");
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_exaone_moe_host() { return std::make_unique<ExaoneMoeHost>(); }

}  // namespace moefy
