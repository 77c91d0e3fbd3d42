#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "abilities.hpp"
#include "host.hpp"
#include "layout.hpp"
#include "softmax_recipe.hpp"

namespace moefy {

namespace {

/// The class always builds a shared expert. Where nothing is shared it is a zero one of this width:
/// tensors without elements are not known to load everywhere.
constexpr std::int64_t kEmptySharedWidth = 8;
/// sigmoid(gate · x) is one half up to this; an exact zero makes NaN in llama.cpp.
constexpr int kSharedGateLog2 = -20;
constexpr int kSharedScaleLog2 = 1;  ///< down x 2 undoes sigmoid(0) = 1/2

/// Qwen2MoeForCausalLM. Weights are a softmax over all E experts (down x E, k editable), or over
/// the chosen k (down x k).
class Qwen2MoeHost final : public Host {
 public:
  explicit Qwen2MoeHost(bool normalized) : normalized_(normalized) {}
  std::string name() const override { return "qwen2-moe"; }
  std::string description() const override {
    return "Qwen2MoeForCausalLM: shared experts, dense layers beside; top-k editable if the "
           "experts are a power of two, else top-k must be one; llama, mistral, qwen2";
  }
  std::string recipe() const override { return normalized_ ? "normalized" : "all-experts"; }
  bool top_k_editable() const override { return !normalized_; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override;
  void build(ConversionPlan& plan, const Family& family) const override;

 private:
  void add_layer(ConversionPlan& plan, std::size_t layer) const;
  std::string config_text(const ConversionPlan& plan, const Family& family) const;

  bool normalized_;
};

Obstacles Qwen2MoeHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities;
  abilities.biases = Abilities::Biases::query_key_value;
  abilities.window = Abilities::Window::by_layer;
  abilities.dense_layers = Abilities::DenseLayers::anywhere;
  abilities.shared_experts = true;
  Obstacles found = obstacles_to(abilities, plan, family);
  add_softmax_obstacles(plan, normalized_, found);
  return found;
}

std::string Qwen2MoeHost::reason(const ConversionPlan& plan) const {
  return softmax_reason(plan, normalized_);
}

void Qwen2MoeHost::build(ConversionPlan& plan, const Family& family) const {
  plan.routed_scale_log2 = exact_log2(normalized_ ? plan.shape.top_k : plan.shape.num_experts);
  if (normalized_) plan.weighting = RouterWeighting::softmax_over_chosen;
  add_backbone(plan, family);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer) {
    if (plan.results[layer])
      add_layer(plan, layer);
    else
      add_dense_layer(plan, layer);
  }
  plan.config_text = config_text(plan, family);
}

void Qwen2MoeHost::add_layer(ConversionPlan& plan, std::size_t layer) const {
  add_experts(plan, layer, qwen_expert_names());
  const LayerInfo& info = plan.source.layers[layer];
  const std::string prefix = layer_prefix(plan, layer) + "mlp.";
  const DType dtype = info.find(FfnRole::up)->dtype;
  const auto fill = [&](const std::string& name, std::vector<std::int64_t> shape, float value) {
    plan.tensors.push_back({{prefix + name, dtype, std::move(shape)}, FillPart{value}});
  };
  fill("shared_expert_gate.weight", {1, info.hidden_size}, std::ldexp(1.0f, kSharedGateLog2));
  if (plan.shape.shared_width > 0) {
    add_gated(plan, layer, prefix + "shared_expert.", plan.results[layer]->lists().shared_members(),
              plan.shape.shared_width, kSharedScaleLog2);
    return;
  }
  fill("shared_expert.gate_proj.weight", {kEmptySharedWidth, info.hidden_size}, 0);
  fill("shared_expert.up_proj.weight", {kEmptySharedWidth, info.hidden_size}, 0);
  fill("shared_expert.down_proj.weight", {info.hidden_size, kEmptySharedWidth}, 0);
}

std::string Qwen2MoeHost::config_text(const ConversionPlan& plan, const Family& family) const {
  using Json = nlohmann::ordered_json;
  const ExpertShape& shape = plan.shape;
  Json config{{"architectures", {"Qwen2MoeForCausalLM"}}, {"model_type", "qwen2_moe"}};
  config.update(Json::parse(family.common_config));
  config["intermediate_size"] = family.intermediate_size;
  config["moe_intermediate_size"] = shape.expert_width;
  config["shared_expert_intermediate_size"] =
      shape.shared_width > 0 ? shape.shared_width : kEmptySharedWidth;
  config["num_experts"] = shape.num_experts;
  config["num_experts_per_tok"] = shape.top_k;
  config["norm_topk_prob"] = normalized_;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = dense_layers(plan);
  config["qkv_bias"] = family.qkv_bias;
  config["use_sliding_window"] = family.sliding_window.has_value();
  if (family.sliding_window) {
    config["sliding_window"] = *family.sliding_window;
    Json types = Json::array();
    for (std::int64_t layer = 0; layer < family.num_layers; ++layer)
      types.push_back(std::ranges::find(family.full_layers, layer) == family.full_layers.end()
                          ? "sliding_attention"
                          : "full_attention");
    config["max_window_layers"] = family.num_layers;
    config["layer_types"] = std::move(types);
  }
  config["output_router_logits"] = false;
  config["router_aux_loss_coef"] = 0.001;
  return config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_qwen2_moe_host(bool normalized) {
  return std::make_unique<Qwen2MoeHost>(normalized);
}

}  // namespace moefy
