#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "layout.hpp"
#include "softmax_recipe.hpp"

namespace moefy {

namespace {

/// Qwen3MoeForCausalLM: Qwen2's recipes with q and k norms, without shared experts.
class Qwen3MoeHost final : public Host {
 public:
  explicit Qwen3MoeHost(bool normalized) : normalized_(normalized) {}
  std::string name() const override { return "qwen3-moe"; }
  std::string description() const override {
    return "Qwen3MoeForCausalLM: nothing shared, dense layers beside; top-k editable if the "
           "experts are a power of two, else top-k must be one; qwen3";
  }
  std::string recipe() const override { return normalized_ ? "normalized" : "all-experts"; }
  bool top_k_editable() const override { return !normalized_; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override {
    return softmax_reason(plan, normalized_);
  }
  void build(ConversionPlan& plan, const Family& family) const override;

 private:
  bool normalized_;
};

Obstacles Qwen3MoeHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities;
  abilities.qk_norms = Abilities::Norms::required;
  abilities.dense_layers = Abilities::DenseLayers::anywhere;
  Obstacles found = obstacles_to(abilities, plan, family);
  add_softmax_obstacles(plan, normalized_, found);
  return found;
}

void Qwen3MoeHost::build(ConversionPlan& plan, const Family& family) const {
  const ExpertShape& shape = plan.shape;
  plan.routed_scale_log2 = exact_log2(normalized_ ? shape.top_k : shape.num_experts);
  if (normalized_) plan.weighting = RouterWeighting::softmax_over_chosen;
  add_backbone(plan, family);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer) {
    if (plan.results[layer])
      add_experts(plan, layer, qwen_expert_names());
    else
      add_dense_layer(plan, layer);
  }
  using Json = nlohmann::ordered_json;
  Json config{{"architectures", {"Qwen3MoeForCausalLM"}}, {"model_type", "qwen3_moe"}};
  config.update(Json::parse(family.common_config));
  config["intermediate_size"] = family.intermediate_size;
  config["moe_intermediate_size"] = shape.expert_width;
  config["num_experts"] = shape.num_experts;
  config["num_experts_per_tok"] = shape.top_k;
  config["norm_topk_prob"] = normalized_;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = dense_layers(plan);
  config["attention_bias"] = false;
  config["use_sliding_window"] = false;
  config["output_router_logits"] = false;
  config["router_aux_loss_coef"] = 0.001;
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_qwen3_moe_host(bool normalized) {
  return std::make_unique<Qwen3MoeHost>(normalized);
}

}  // namespace moefy
