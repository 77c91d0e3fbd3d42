#include "abilities.hpp"

namespace moefy {

namespace {

void check_attention(const Abilities& abilities, const Family& family,
                     std::vector<std::string>& found) {
  using Biases = Abilities::Biases;
  using Norms = Abilities::Norms;
  if (family.qkv_bias && abilities.biases == Biases::none)
    found.push_back("it has no q, k and v biases");
  else if (family.o_bias && abilities.biases != Biases::whole_attention)
    found.push_back("its o_proj has no bias");
  else if (family.qkv_bias != family.o_bias && abilities.biases == Biases::whole_attention)
    found.push_back("its attention has biases on q, k, v and o, or on none of them");
  if (family.qk_norm && abilities.qk_norms == Norms::none)
    found.push_back("it has no q and k norms");
  if (!family.qk_norm && abilities.qk_norms == Norms::required)
    found.push_back("it needs q and k norms, and the model has none");
  if (family.partial_rotary != 1 && !abilities.partial_rotary)
    found.push_back("it rotates whole heads only");
  if (family.fused_qkv && !abilities.split_qkv)
    found.push_back("it is not known to fit Phi-3's attention");
}

void check_window(const Abilities& abilities, const Family& family,
                  std::vector<std::string>& found) {
  if (!family.sliding_window) return;
  if (abilities.window == Abilities::Window::none) found.push_back("it has no sliding window");
  if (abilities.window == Abilities::Window::same_in_all_layers && !family.full_layers.empty())
    found.push_back("its sliding window is the same in all layers");
}

void check_layers(const Abilities& abilities, const ConversionPlan& plan,
                  std::vector<std::string>& found) {
  using DenseLayers = Abilities::DenseLayers;
  if (abilities.dense_layers == DenseLayers::none && !dense_layers(plan).empty())
    found.push_back("it has no dense layers, and the map leaves some dense");
  if (abilities.dense_layers == DenseLayers::first && leading_dense_layers(plan) < 0)
    found.push_back("its dense layers come first, and the map leaves others dense");
}

}  // namespace

std::int64_t leading_dense_layers(const ConversionPlan& plan) {
  const std::vector<std::int64_t> dense = dense_layers(plan);
  const auto count = static_cast<std::int64_t>(dense.size());
  return dense.empty() || dense.back() == count - 1 ? count : -1;
}

Obstacles obstacles_to(const Abilities& abilities, const ConversionPlan& plan,
                       const Family& family) {
  Obstacles found{family.obstacles, {}};
  check_attention(abilities, family, found.family);
  check_window(abilities, family, found.family);
  if (family.offset_norms && !abilities.offset_norms)
    found.family.push_back("it is not known to fit Gemma's norms and embedding");
  if (family.has_multipliers && !abilities.multipliers)
    found.family.push_back("it has no place for Granite's multipliers");
  check_layers(abilities, plan, found.family);
  if (has_deep_router(plan) && !abilities.deep_router)
    found.family.push_back(
        "its router is linear, and the map's has two layers (`moefy route` with "
        "another --router replaces it; --host llama-moe has two layers, and no stock class)");
  if (has_distance_router(plan))
    found.family.push_back(
        "its router is linear, and the map's compares distances, for evaluation alone "
        "(`moefy route` with --similarity cosine or another --router replaces it)");
  if (has_router_bias(plan) && !abilities.router_bias)
    found.family.push_back("its router has no bias, and the map's has one");
  if (plan.shape.num_shared > 0 && !abilities.shared_experts)
    found.counts.push_back("it has no shared experts");
  return found;
}

}  // namespace moefy
