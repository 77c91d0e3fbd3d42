#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "host.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// The dense model with the neurons of each layer in the map's order: every family has it, and an
/// expert is a contiguous range of neurons. Where experts share or omit neurons the layers are as
/// wide as all lists together.
class DenseHost final : public Host {
 public:
  std::string name() const override { return "dense"; }
  std::string description() const override {
    return "the dense model itself, neurons in the map's order; every family; after split --method "
           "prune a smaller one";
  }
  std::string recipe() const override { return ""; }
  bool top_k_editable() const override { return false; }
  Obstacles obstacles(const ConversionPlan&, const Family&) const override { return {}; }
  std::string reason(const ConversionPlan&) const override { return "asked for"; }
  void build(ConversionPlan& plan, const Family& family) const override;

 private:
  static void add_layer(ConversionPlan& plan, std::size_t layer);
};

bool belongs_to_neurons(FfnRole role) { return role != FfnRole::down_bias; }

/// Neurons of a layer in the output.
std::int64_t width_of(const ConversionPlan& plan, std::size_t layer) {
  const LayerResult* result = plan.results[layer];
  return result ? static_cast<std::int64_t>(result->lists().members().size())
                : plan.source.layers[layer].num_neurons;
}

/// config.json with the width that all layers have. UsageError if they have several.
std::string config_of_width(const ConversionPlan& plan) {
  const std::vector<LayerInfo>& layers = plan.source.layers;
  const std::int64_t width = width_of(plan, 0);
  bool changed = false;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (width_of(plan, l) != width)
      throw UsageError(fmt::format(
          "host dense: layer {} gets {} neurons and layer 0 gets {}, and config.json has one width "
          "for all of them; split all layers alike",
          layers[l].index, width_of(plan, l), width));
    changed = changed || layers[l].num_neurons != width;
  }
  if (!changed) return plan.source.config_text;
  auto config = nlohmann::ordered_json::parse(plan.source.config_text);
  config[nlohmann::ordered_json::json_pointer(layers.front().num_neurons_key)] = width;
  return config.dump(2) + "\n";
}

void DenseHost::build(ConversionPlan& plan, const Family&) const {
  plan.config_text = config_of_width(plan);
  plan.shape = {};
  std::vector<bool> placed(plan.source.tensors.size(), false);
  for (std::size_t layer = 0; layer < plan.source.layers.size(); ++layer) {
    if (!plan.results[layer]) continue;
    add_layer(plan, layer);
    for (const FfnTensor& tensor : plan.source.layers[layer].tensors)
      if (belongs_to_neurons(tensor.role)) placed[plan.source.at(tensor.tensor)] = true;
  }
  for (std::size_t i = 0; i < placed.size(); ++i)
    if (!placed[i]) {
      const TensorSpec& spec = plan.source.tensors[i].spec;
      plan.tensors.push_back({spec, CopyPart{i, 0, spec.num_bytes()}});
    }
}

void DenseHost::add_layer(ConversionPlan& plan, std::size_t layer) {
  const LayerInfo& info = plan.source.layers[layer];
  const std::int64_t width = width_of(plan, layer);
  for (const FfnTensor& tensor : info.tensors) {
    if (!belongs_to_neurons(tensor.role)) continue;
    TensorSpec spec = plan.source.tensors[plan.source.at(tensor.tensor)].spec;
    const bool bias = spec.shape.size() == 1;
    const std::int64_t total = tensor.slice_total > 0 ? tensor.slice_total : info.num_neurons;
    NeuronPart part;
    part.layer = layer;
    part.role = tensor.role;
    part.list = kSharedList;
    part.neurons = plan.results[layer]->lists().members();
    part.width = width;
    part.stride = total / info.num_neurons * width;
    part.begin = tensor.slice_begin / info.num_neurons * width;
    if (tensor.neuron_first && !bias) part.begin *= info.hidden_size;
    spec.shape[tensor.neuron_first || bias ? 0 : 1] = part.stride;
    // The halves of a fused tensor come one after the other.
    if (!plan.tensors.empty() && plan.tensors.back().spec.name == spec.name)
      std::get<std::vector<NeuronPart>>(plan.tensors.back().recipe).push_back(part);
    else
      plan.tensors.push_back({std::move(spec), std::vector<NeuronPart>{part}});
  }
}

}  // namespace

std::unique_ptr<Host> make_dense_host() { return std::make_unique<DenseHost>(); }

}  // namespace moefy
