#include "host.hpp"
#include "layout.hpp"

namespace moefy {

namespace {

/// The dense model with the neurons of each layer in the map's order: every family has it, and an
/// expert is a contiguous range of neurons.
class DenseHost final : public Host {
 public:
  std::string name() const override { return "dense"; }
  std::string description() const override {
    return "the dense model itself, neurons in the map's order; every family";
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

void DenseHost::build(ConversionPlan& plan, const Family&) const {
  plan.config_text = plan.source.config_text;
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
  for (const FfnTensor& tensor : info.tensors) {
    if (!belongs_to_neurons(tensor.role)) continue;
    const std::size_t source = plan.source.at(tensor.tensor);
    const TensorSpec& spec = plan.source.tensors[source].spec;
    const std::int64_t total = tensor.slice_total > 0 ? tensor.slice_total : info.num_neurons;
    const bool bias = spec.shape.size() == 1;
    NeuronPart part;
    part.layer = layer;
    part.role = tensor.role;
    part.list = kSharedList;
    part.neurons = plan.results[layer]->partition.members();
    part.width = info.num_neurons;
    part.begin =
        tensor.neuron_first && !bias ? tensor.slice_begin * info.hidden_size : tensor.slice_begin;
    part.stride = total;
    // The halves of a fused tensor come one after the other.
    if (!plan.tensors.empty() && plan.tensors.back().spec.name == spec.name)
      std::get<std::vector<NeuronPart>>(plan.tensors.back().recipe).push_back(part);
    else
      plan.tensors.push_back({spec, std::vector<NeuronPart>{part}});
  }
}

}  // namespace

std::unique_ptr<Host> make_dense_host() { return std::make_unique<DenseHost>(); }

}  // namespace moefy
