#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "abilities.hpp"
#include "host.hpp"
#include "layout.hpp"

namespace moefy {

namespace {

using Json = nlohmann::ordered_json;

/// The layout and the config.json of LLaMA-MoE (EMNLP 2024), whose classes transformers does not
/// have. Experts weigh one each, or, with --gate-scale 1, what a softmax over the chosen ones says,
/// times score_scale_factor. Shared experts are its residual ones.
class LlamaMoeHost final : public Host {
 public:
  std::string name() const override { return "llama-moe"; }
  std::string description() const override {
    return "LLaMA-MoE's layout, for its own classes (transformers has none): residual experts, "
           "routers of one or two layers, experts of unequal width; llama, mistral without window";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return true; }
  bool is_automatic(const Family&) const override { return false; }
  bool is_stock() const override { return false; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan&) const override { return "asked for"; }
  void build(ConversionPlan& plan, const Family& family) const override;
};

bool is_ragged(const ConversionPlan& plan) { return plan.config.uneven == "ragged"; }

bool all_routers_are_deep(const ConversionPlan& plan) {
  return std::ranges::all_of(plan.results, [](const LayerResult* result) {
    return result && result->router.output.rows() > 0;
  });
}

using Widths = std::vector<std::int64_t>;

/// Of a layer's routed experts.
Widths routed_widths(const ConversionPlan& plan, std::size_t layer) {
  const NeuronLists& lists = plan.results[layer]->lists();
  Widths widths;
  for (std::size_t e = 0; e < lists.num_experts(); ++e)
    widths.push_back(is_ragged(plan) ? static_cast<std::int64_t>(lists.expert_members(e).size())
                                     : plan.shape.expert_width);
  return widths;
}

/// Of a layer's shared experts: config.json has one list for all layers.
Widths shared_widths(const ConversionPlan& plan, std::size_t layer) {
  const NeuronLists& lists = plan.results[layer]->lists();
  Widths widths;
  for (std::size_t r = 0; r < lists.num_shared(); ++r)
    widths.push_back(is_ragged(plan) ? static_cast<std::int64_t>(lists.shared_members(r).size())
                                     : plan.shape.shared_width / plan.shape.num_shared);
  return widths;
}

std::int64_t sum(const Widths& widths) {
  return std::accumulate(widths.begin(), widths.end(), std::int64_t{0});
}

/// The class has each shared expert by itself, padded by itself.
void widen_shared(ConversionPlan& plan) {
  if (is_ragged(plan)) {
    plan.shape.padding = 0;
    return;
  }
  std::int64_t largest = 0;
  for (const LayerResult* result : plan.results)
    for (std::size_t r = 0; r < result->lists().num_shared(); ++r)
      largest =
          std::max(largest, static_cast<std::int64_t>(result->lists().shared_members(r).size()));
  const std::int64_t align = plan.config.align;
  const std::int64_t width = plan.shape.num_shared * ((largest + align - 1) / align * align);
  plan.shape.padding +=
      static_cast<std::int64_t>(plan.results.size()) * (width - plan.shape.shared_width);
  plan.shape.shared_width = width;
}

/// How positions are rotated, in the keys that the class knows; nothing if it does not know the
/// kind.
std::optional<Json> rope_config(const Json& common) {
  Json scaling = common.value("rope_scaling", Json());
  Json theta = common.value("rope_theta", Json(10000.0));
  if (common.contains("rope_parameters")) {
    scaling = common["rope_parameters"];
    theta = scaling["rope_theta"];
  }
  Json result = {{"rope_theta", theta}, {"rope_scaling", nullptr}};
  if (scaling.is_null()) return result;
  const std::string kind = scaling.value("rope_type", scaling.value("type", "default"));
  if (kind == "default") return result;
  if (kind != "linear" && kind != "dynamic") return std::nullopt;
  result["rope_scaling"] = {{"type", kind}, {"factor", scaling["factor"]}};
  return result;
}

Obstacles LlamaMoeHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Abilities abilities;
  abilities.shared_experts = true;
  abilities.deep_router = true;
  Obstacles found = obstacles_to(abilities, plan, family);
  if (!found.family.empty()) return found;
  const Json common = Json::parse(family.common_config);
  if (!rope_config(common))
    found.family.push_back("its rotary embedding knows linear and dynamic scaling only");
  if (common["head_dim"].get<std::int64_t>() * common["num_attention_heads"].get<std::int64_t>() !=
      family.hidden_size)
    found.family.push_back("its heads together are as wide as the hidden state");
  if (has_deep_router(plan) && !all_routers_are_deep(plan))
    found.family.push_back(
        "its routers have one layer or two, the same in all layers of the model");
  if (plan.config.layout == "fused")
    found.family.push_back("it has a tensor for each expert, no fused layout");
  if (plan.config.gate_scale.starts_with("2^"))
    found.family.push_back(
        "it does not need scaled routers: --gate-scale auto, or 1 for a softmax");
  for (std::size_t layer = 1; is_ragged(plan) && layer < plan.results.size(); ++layer)
    if (shared_widths(plan, layer) != shared_widths(plan, 0) ||
        sum(routed_widths(plan, layer)) != sum(routed_widths(plan, 0)))
      found.family.push_back(
          fmt::format("layer {} has other widths than layer 0, for which config.json has no place "
                      "(--uneven pad makes all equal)",
                      layer));
  return found;
}

void add_layer(ConversionPlan& plan, std::size_t layer) {
  const LayerInfo& info = plan.source.layers[layer];
  const LayerResult& result = *plan.results[layer];
  const NeuronLists& lists = result.lists();
  const std::string mlp = layer_prefix(plan, layer) + "mlp.";
  const std::string routed = plan.shape.num_shared > 0 ? mlp + "moe_layer." : mlp;
  const DType dtype = info.find(FfnRole::up)->dtype;
  const std::int64_t experts = plan.shape.num_experts;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, Recipe recipe) {
    plan.tensors.push_back({{name, dtype, std::move(shape)}, std::move(recipe)});
  };
  const auto add_matrices = [&](const std::string& block, std::size_t e, std::int64_t list,
                                std::span<const std::int32_t> neurons, std::int64_t width) {
    const auto name = [&](const char* role) {
      return fmt::format("{}calculator.experts.weight_{}.{}", block, role, e);
    };
    add_list(plan, layer, list, {name("gate"), name("up"), name("down")}, neurons, width);
  };

  const Widths widths = routed_widths(plan, layer);
  for (std::size_t e = 0; e < widths.size(); ++e)
    add_matrices(routed, e, static_cast<std::int64_t>(e), lists.expert_members(e), widths[e]);
  const std::string gate = routed + "gate.gate_network.";
  if (result.router.output.rows() > 0) {
    const std::size_t norm =
        plan.source.at(layer_prefix(plan, layer) + "post_attention_layernorm.weight");
    add(gate + "0.weight", {experts, info.hidden_size}, RouterPart{layer, norm});
    add(gate + "2.weight", {experts, experts}, RouterOutputPart{layer});
  } else {
    add(gate + "weight", {experts, info.hidden_size}, RouterPart{layer, {}});
  }
  add(routed + "gate.weight_noise.weight", {experts, info.hidden_size}, FillPart{0});

  const Widths shared = shared_widths(plan, layer);
  for (std::size_t r = 0; r < shared.size(); ++r)
    add_matrices(mlp + "residual_block.", r, kSharedList - static_cast<std::int64_t>(r),
                 lists.shared_members(r), shared[r]);
  if (!shared.empty())
    add(mlp + "residual_block.gate.gate_network.weight", {plan.shape.num_shared, info.hidden_size},
        FillPart{0});
}

/// One number, or one a layer where they differ. The class multiplies a softmax, whose weights sum
/// to one, by it.
Json score_scale_factor(const ConversionPlan& plan) {
  if (!plan.score_in_config) return 1.0;
  std::vector<double> factors;
  for (std::size_t layer = 0; layer < plan.results.size(); ++layer)
    factors.push_back(plan.score_factor(layer) * plan.sum_of_weights());
  if (std::ranges::adjacent_find(factors, std::ranges::not_equal_to{}) == factors.end())
    return factors.front();
  return factors;
}

std::string config_text(const ConversionPlan& plan, const Family& family) {
  const bool residual = plan.shape.num_shared > 0;
  const Json common = Json::parse(family.common_config);
  Json config{{"architectures", {residual ? "LlamaMoEResidualForCausalLM" : "LlamaMoEForCausalLM"}},
              {"model_type", residual ? "llama_moe_residual" : "llama_moe"}};
  config.update(common);
  config.erase("rope_parameters");
  config.update(*rope_config(common));
  config["pretraining_tp"] = 1;
  const std::int64_t routed = sum(routed_widths(plan, 0));
  const std::int64_t shared = sum(shared_widths(plan, 0));
  config["intermediate_size"] = routed + shared;
  config["num_experts"] = plan.shape.num_experts;
  config["num_selects"] = plan.shape.top_k;
  config["size_experts"] = Json::array();
  for (std::size_t layer = 0; layer < plan.results.size(); ++layer)
    config["size_experts"].push_back(routed_widths(plan, layer));
  if (residual) {
    config["num_experts_residual"] = plan.shape.num_shared;
    config["intermediate_size_moe"] = routed;
    config["intermediate_size_residual"] = shared;
    config["size_experts_residual"] = shared_widths(plan, 0);
    // The class divides by the number of residual experts.
    config["score_scale_factor_residual"] = static_cast<double>(plan.shape.num_shared);
    config["use_weighting"] = false;
  }
  config["gate_type"] = "TopKBalancedNoisyGate";
  config["gate_network"] = has_deep_router(plan) ? "mlp" : "linear";
  config["gate_use_softmax"] = true;
  config["gate_use_balance"] = true;
  config["gate_balance_loss_weight"] = 0.01;
  config["gate_add_noise"] = true;
  config["gate_noise_epsilon"] = 0.01;
  config["calculator_type"] = "UniversalCalculator";
  config["multiply_gate_scores"] = plan.weighting == RouterWeighting::softmax_over_chosen;
  config["score_scale_factor"] = score_scale_factor(plan);
  config["capacity_factor"] = 1.25;
  return config.dump(2) + "\n";
}

void LlamaMoeHost::build(ConversionPlan& plan, const Family& family) const {
  const bool is_softmax = plan.config.gate_scale == "1";
  plan.weighting = is_softmax ? RouterWeighting::softmax_over_chosen : RouterWeighting::one;
  // Programs of the original ignore the factor where experts weigh one: there it goes into down.
  plan.score_in_config = is_softmax;
  plan.top_k_key = "num_selects";
  std::ranges::fill(plan.gate_scale_log2, 0);
  widen_shared(plan);
  add_backbone(plan, family);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer) add_layer(plan, layer);
  plan.config_text = config_text(plan, family);
  plan.notes.push_back(
      "The layout is LLaMA-MoE's own: transformers has no class for it, LLaMA-MoE's code has.");
  if (has_deep_router(plan))
    plan.notes.push_back(
        "The routers divide their input by its length, LLaMA-MoE's gates do not: their first "
        "layers "
        "are divided by the length of the norm weight before them, which that length is near.");
}

}  // namespace

std::unique_ptr<Host> make_llama_moe_host() { return std::make_unique<LlamaMoeHost>(); }

}  // namespace moefy
