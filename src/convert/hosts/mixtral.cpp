#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "host.hpp"
#include "layout.hpp"

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
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override;
  std::string reason(const ConversionPlan& plan) const override {
    return fmt::format("nothing is shared, every layer is converted and top-k {} is a power of two",
                       plan.shape.top_k);
  }
  void build(ConversionPlan& plan, const Family& family) const override;
};

Obstacles MixtralHost::obstacles(const ConversionPlan& plan, const Family& family) const {
  Obstacles found{family.obstacles, {}};
  if (family.qk_norm) found.family.push_back("it has no q and k norms");
  if (family.partial_rotary != 1) found.family.push_back("it rotates whole heads only");
  if (family.qkv_bias) found.family.push_back("it has no q, k and v biases");
  if (!family.full_layers.empty())
    found.family.push_back("its sliding window is the same in all layers");
  for (const LayerResult* result : plan.results) {
    if (!result) {
      found.family.push_back("it has no dense layers, and the map leaves some dense");
      break;
    }
    if (!result->router.bias.empty()) {
      found.family.push_back("its router has no bias, and the map's has one");
      break;
    }
  }
  const ExpertShape& shape = plan.shape;
  if (shape.num_shared > 0) found.counts.push_back("it has no shared experts");
  if (!is_power_of_two(shape.top_k))
    found.counts.push_back(
        fmt::format("its factor is top-k, and {} is no power of two", shape.top_k));
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
