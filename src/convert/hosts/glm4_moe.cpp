#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "host.hpp"
#include "layout.hpp"

namespace moefy {

namespace {

const ExpertNames kNames = {"mlp.gate.weight",  "mlp.experts",    "mlp.experts",
                            "gate_proj.weight", "up_proj.weight", "down_proj.weight"};

/// Glm4MoeForCausalLM: every chosen expert weighs 2 · sigmoid(logit), which is one where logits are
/// small, whatever the counts; dense layers only before the first MoE one.
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
  std::string reason(const ConversionPlan& plan) const override {
    return fmt::format("{} experts, {} shared and top-k {} need no factor with it",
                       plan.shape.num_experts, plan.shape.num_shared, plan.shape.top_k);
  }
  void build(ConversionPlan& plan, const Family& family) const override;

 private:
  static void add_layer(ConversionPlan& plan, std::size_t layer);
  static std::string config_text(const ConversionPlan& plan, const Family& family);
};

/// Layers before the first that is converted; -1 if others stay dense, too.
std::int64_t leading_dense_layers(const ConversionPlan& plan) {
  const std::vector<std::int64_t> dense = dense_layers(plan);
  const auto count = static_cast<std::int64_t>(dense.size());
  return dense.empty() || dense.back() == count - 1 ? count : -1;
}

Obstacles Glm4MoeHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Obstacles found{family.obstacles, {}};
  if (family.sliding_window) found.family.push_back("it has no sliding window");
  if (family.offset_norms) found.family.push_back("it has no place for Gemma's norms");
  if (leading_dense_layers(plan) < 0)
    found.family.push_back("its dense layers come first, and the map leaves others dense");
  return found;
}

/// The class counts shared experts, each as wide as a routed one.
void widen_shared(ConversionPlan& plan) {
  ExpertShape& shape = plan.shape;
  const std::int64_t width = shape.num_shared * shape.expert_width;
  for (const LayerResult* result : plan.results)
    if (result) shape.padding += width - shape.shared_width;
  shape.shared_width = width;
}

void Glm4MoeHost::build(ConversionPlan& plan, const Family& family) const {
  widen_shared(plan);
  plan.weighting = RouterWeighting::twice_sigmoid;
  add_backbone(plan, family);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer) {
    if (plan.results[layer])
      add_layer(plan, layer);
    else
      add_dense_layer(plan, layer);
  }
  plan.config_text = config_text(plan, family);
}

void Glm4MoeHost::add_layer(ConversionPlan& plan, std::size_t layer) {
  add_experts(plan, layer, kNames);
  const ExpertShape& shape = plan.shape;
  const std::string prefix = layer_prefix(plan, layer) + "mlp.";
  Recipe bias = FillPart{0};
  if (!plan.results[layer]->router.bias.empty()) bias = SelectionBiasPart{layer};
  plan.tensors.push_back(
      {{prefix + "gate.e_score_correction_bias", DType::f32, {shape.num_experts}}, bias});
  // Without shared experts the class still has their tensors, of width 0.
  add_gated(plan, layer, prefix + "shared_experts.",
            plan.results[layer]->partition.shared_members(), shape.shared_width, 0);
}

std::string Glm4MoeHost::config_text(const ConversionPlan& plan, const Family& family) {
  using Json = nlohmann::ordered_json;
  const ExpertShape& shape = plan.shape;
  Json config{{"architectures", {"Glm4MoeForCausalLM"}}, {"model_type", "glm4_moe"}};
  config.update(Json::parse(family.common_config));
  config["intermediate_size"] = family.intermediate_size;
  config["moe_intermediate_size"] = shape.expert_width;
  config["n_routed_experts"] = shape.num_experts;
  config["n_shared_experts"] = shape.num_shared;
  config["num_experts_per_tok"] = shape.top_k;
  config["norm_topk_prob"] = false;
  config["routed_scaling_factor"] = 2.0;
  config["n_group"] = 1;
  config["topk_group"] = 1;
  config["first_k_dense_replace"] = leading_dense_layers(plan);
  config["attention_bias"] = family.qkv_bias;
  config["use_qk_norm"] = family.qk_norm;
  config["num_nextn_predict_layers"] = 0;
  // Readers differ in where they look for it, and the class' own default is one half.
  config["partial_rotary_factor"] = family.partial_rotary;
  if (config.contains("rope_parameters") && config["rope_parameters"].is_object())
    config["rope_parameters"]["partial_rotary_factor"] = family.partial_rotary;
  return config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_glm4_moe_host() { return std::make_unique<Glm4MoeHost>(); }

}  // namespace moefy
