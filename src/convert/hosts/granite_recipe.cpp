#include "granite_recipe.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "layout.hpp"
#include "softmax_recipe.hpp"

namespace moefy {

namespace {

/// The classes have no layout with a tensor for each expert.
const ExpertNames kNames = {
    "block_sparse_moe.router.layer.weight", "", "", "", "", "block_sparse_moe.input_linear.weight",
    "block_sparse_moe.output_linear.weight"};
/// transformers 5 writes the fused layout under other names.
const ExpertNames kFusedNames = {
    "block_sparse_moe.router.weight",    "", "", "", "", "block_sparse_moe.experts.gate_up_proj",
    "block_sparse_moe.experts.down_proj"};

}  // namespace

Obstacles granite_obstacles(const ConversionPlan& plan, const Family& family, bool shared_experts) {
  Abilities abilities;
  abilities.biases = Abilities::Biases::whole_attention;
  abilities.offset_norms = true;
  abilities.multipliers = true;
  abilities.shared_experts = shared_experts;
  Obstacles found = obstacles_to(abilities, plan, family);
  add_top_k_obstacle(plan, found);
  return found;
}

std::string granite_reason(const ConversionPlan& plan) {
  return fmt::format("every layer is converted and top-k {} is a power of two", plan.shape.top_k);
}

void build_granite_layers(ConversionPlan& plan, const Family& family) {
  plan.routed_scale_log2 = exact_log2(plan.shape.top_k);
  plan.weighting = RouterWeighting::softmax_over_chosen;
  add_backbone(plan, family, Embeddings::multiplied_by_the_class);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer)
    add_experts(plan, layer, plan.config.layout == "fused" ? kFusedNames : kNames);
}

std::string granite_config(const ConversionPlan& plan, const Family& family,
                           std::string_view architecture, std::string_view model_type) {
  using Json = nlohmann::ordered_json;
  const ExpertShape& shape = plan.shape;
  Json config{{"architectures", {architecture}}, {"model_type", model_type}};
  config.update(Json::parse(family.common_config));
  config["tie_word_embeddings"] = family.tied_embeddings;
  config["intermediate_size"] = shape.expert_width;
  config["num_local_experts"] = shape.num_experts;
  config["num_experts_per_tok"] = shape.top_k;
  // The class' own defaults are 1, also for the attention.
  config["embedding_multiplier"] = family.multipliers.embedding;
  config["residual_multiplier"] = family.multipliers.residual;
  config["attention_multiplier"] = family.multipliers.attention;
  config["logits_scaling"] = family.multipliers.logits;
  config["attention_bias"] = family.qkv_bias;
  config["output_router_logits"] = false;
  config["router_aux_loss_coef"] = 0.001;
  return config.dump();
}

}  // namespace moefy
