#include <nlohmann/json.hpp>

#include "granite_recipe.hpp"
#include "host.hpp"

namespace moefy {

namespace {

/// GraniteMoeForCausalLM.
class GraniteMoeHost final : public Host {
 public:
  std::string name() const override { return "granitemoe"; }
  std::string description() const override {
    return "GraniteMoeForCausalLM: top-k a power of two and fixed, nothing shared, every layer; "
           "granite, gemma, llama also with biases, mistral without window";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return false; }
  Obstacles obstacles(const ConversionPlan& plan, const Family& family) const override {
    return granite_obstacles(plan, family, false);
  }
  std::string reason(const ConversionPlan& plan) const override { return granite_reason(plan); }
  void build(ConversionPlan& plan, const Family& family) const override;
};

void GraniteMoeHost::build(ConversionPlan& plan, const Family& family) const {
  build_granite_layers(plan, family);
  const auto config = nlohmann::ordered_json::parse(
      granite_config(plan, family, "GraniteMoeForCausalLM", "granitemoe"));
  plan.config_text = config.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<Host> make_granitemoe_host() { return std::make_unique<GraniteMoeHost>(); }

}  // namespace moefy
