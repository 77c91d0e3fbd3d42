#include <nlohmann/json.hpp>

#include "granite_recipe.hpp"
#include "host.hpp"
#include "layout.hpp"

namespace moefy {

namespace {

/// GraniteMoeSharedForCausalLM: one plain FFN of any width beside the experts, or none.
class GraniteMoeSharedHost final : public Host {
 public:
  std::string name() const override { return "granitemoeshared"; }
  std::string description() const override {
    return "GraniteMoeSharedForCausalLM: top-k a power of two and fixed, shared experts, every "
           "layer; granite, gemma, llama also with biases, mistral without window";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return false; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override {
    return granite_obstacles(plan, family, true);
  }
  std::string reason(const ConversionPlan& plan) const override { return granite_reason(plan); }
  void build(ConversionPlan& plan, const Family& family) const override;
};

void GraniteMoeSharedHost::build(ConversionPlan& plan, const Family& family) const {
  build_granite_layers(plan, family);
  // Width 0 switches the shared expert off, and then it has no tensors.
  for (std::size_t layer = 0; plan.shape.shared_width > 0 && layer < plan.source.layers.size();
       ++layer) {
    const std::string prefix = layer_prefix(plan, layer) + "shared_mlp.";
    add_packed_gated(plan, layer, prefix + "input_linear.weight", prefix + "output_linear.weight",
                     plan.results[layer]->lists().shared_members(), plan.shape.shared_width);
  }
  auto config = nlohmann::ordered_json::parse(
      granite_config(plan, family, "GraniteMoeSharedForCausalLM", "granitemoeshared"));
  config["shared_intermediate_size"] = plan.shape.shared_width;
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_granitemoeshared_host() {
  return std::make_unique<GraniteMoeSharedHost>();
}

}  // namespace moefy
