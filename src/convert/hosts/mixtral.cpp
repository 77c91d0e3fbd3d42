#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "layout.hpp"
#include "softmax_recipe.hpp"

namespace moefy {

namespace {

const ExpertNames kNames = {"block_sparse_moe.gate.weight",
                            "block_sparse_moe.experts",
                            "w1.weight",
                            "w3.weight",
                            "w2.weight",
                            "",
                            ""};
/// transformers 5 writes the fused layout under other names.
const ExpertNames kFusedNames = {"mlp.gate.weight",      "", "", "", "", "mlp.experts.gate_up_proj",
                                 "mlp.experts.down_proj"};

/// MixtralForCausalLM: softmax over the chosen k, so down carries the factor k.
class MixtralHost final : public Host {
 public:
  std::string name() const override { return "mixtral"; }
  std::string description() const override {
    return "MixtralForCausalLM: top-k a power of two and fixed, nothing shared, every layer; "
           "llama, mistral, phi3, gemma";
  }
  std::string recipe() const override { return "normalized"; }
  bool top_k_editable() const override { return false; }
  /// Granite's classes carry Gemma without a changed embedding.
  bool is_automatic(const Family& family) const override { return !family.offset_norms; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override {
    return fmt::format("nothing is shared, every layer is converted and top-k {} is a power of two",
                       plan.shape.top_k);
  }
  void build(ConversionPlan& plan, const Family& family) const override;
};

Obstacles MixtralHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities;
  abilities.window = Abilities::Window::same_in_all_layers;
  abilities.split_qkv = true;
  abilities.offset_norms = true;
  Obstacles found = obstacles_to(abilities, plan, family);
  add_top_k_obstacle(plan, found);
  return found;
}

void MixtralHost::build(ConversionPlan& plan, const Family& family) const {
  const ExpertShape& shape = plan.shape;
  plan.routed_scale_log2 = exact_log2(shape.top_k);
  plan.weighting = RouterWeighting::softmax_over_chosen;
  add_backbone(plan, family);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer)
    add_experts(plan, layer, plan.config.layout == "fused" ? kFusedNames : kNames);

  auto config =
      nlohmann::ordered_json{{"architectures", {"MixtralForCausalLM"}}, {"model_type", "mixtral"}};
  config.update(nlohmann::ordered_json::parse(family.common_config));
  config["intermediate_size"] = shape.expert_width;
  config["num_local_experts"] = shape.num_experts;
  config["num_experts_per_tok"] = shape.top_k;
  config["sliding_window"] = family.sliding_window ? nlohmann::ordered_json(*family.sliding_window)
                                                   : nlohmann::ordered_json();
  config["router_jitter_noise"] = 0.0;
  config["output_router_logits"] = false;
  config["router_aux_loss_coef"] = 0.001;
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_mixtral_host() { return std::make_unique<MixtralHost>(); }

}  // namespace moefy
