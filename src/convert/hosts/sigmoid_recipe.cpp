#include "sigmoid_recipe.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "layout.hpp"

namespace moefy {

namespace {

/// The class counts shared experts, each as wide as a routed one.
void widen_shared(ConversionPlan& plan) {
  ExpertShape& shape = plan.shape;
  const std::int64_t width = shape.num_shared * shape.expert_width;
  for (const LayerResult* result : plan.results)
    if (result) shape.padding += width - shape.shared_width;
  shape.shared_width = width;
}

void add_layer(ConversionPlan& plan, std::size_t layer, std::string_view selection_bias) {
  add_experts(plan, layer, qwen_expert_names());
  const ExpertShape& shape = plan.shape;
  const std::string prefix = layer_prefix(plan, layer) + "mlp.";
  Recipe bias = FillPart{0};
  if (!plan.results[layer]->router.bias.empty()) bias = SelectionBiasPart{layer};
  plan.tensors.push_back(
      {{prefix + std::string(selection_bias), DType::f32, {shape.num_experts}}, bias});
  // Without shared experts the class still has their tensors, of width 0.
  add_gated(plan, layer, prefix + "shared_experts.", plan.results[layer]->lists().shared_members(),
            shape.shared_width, 0);
}

}  // namespace

Abilities sigmoid_abilities() {
  Abilities abilities;
  abilities.router_bias = true;
  abilities.shared_experts = true;
  return abilities;
}

Obstacles sigmoid_obstacles(const Abilities& abilities, const ConversionPlan& plan,
                            const Family& family) {
  Obstacles found = obstacles_to(abilities, plan, family);
  if (plan.shape.num_experts < 2)
    found.counts.push_back("its router compares the best two experts, and there is one");
  return found;
}

std::string sigmoid_reason(const ConversionPlan& plan) {
  return fmt::format("{} experts, {} shared and top-k {} need no factor with it",
                     plan.shape.num_experts, plan.shape.num_shared, plan.shape.top_k);
}

void build_sigmoid_layers(ConversionPlan& plan, const Family& family,
                          std::string_view selection_bias) {
  widen_shared(plan);
  plan.weighting = RouterWeighting::twice_sigmoid;
  add_backbone(plan, family);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer) {
    if (plan.results[layer])
      add_layer(plan, layer, selection_bias);
    else
      add_dense_layer(plan, layer);
  }
}

std::string sigmoid_config(const ConversionPlan& plan, const Family& family,
                           std::string_view architecture, std::string_view model_type) {
  using Json = nlohmann::ordered_json;
  const ExpertShape& shape = plan.shape;
  Json config{{"architectures", {architecture}}, {"model_type", model_type}};
  config.update(Json::parse(family.common_config));
  config["intermediate_size"] = family.intermediate_size;
  config["moe_intermediate_size"] = shape.expert_width;
  config["num_experts_per_tok"] = shape.top_k;
  config["norm_topk_prob"] = false;
  config["routed_scaling_factor"] = 2.0;
  config["n_group"] = 1;
  config["topk_group"] = 1;
  return config.dump();
}

}  // namespace moefy
