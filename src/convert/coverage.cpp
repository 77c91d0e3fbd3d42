#include <fmt/format.h>

#include "moefy/core/error.hpp"
#include "plan.hpp"

namespace moefy {

namespace {

/// Bytes of each source tensor that must have a place: all of them once; of experts that share
/// neurons, those of a neuron as often as it stands in their lists.
std::vector<std::uint64_t> bytes_to_place(const ConversionPlan& plan) {
  std::vector<std::uint64_t> bytes;
  for (const SourceModel::Tensor& tensor : plan.source.tensors)
    bytes.push_back(tensor.spec.num_bytes());
  for (std::size_t l = 0; l < plan.results.size(); ++l) {
    if (!plan.results[l] || !plan.results[l]->sharing) continue;
    const LayerInfo& layer = plan.source.layers[l];
    const std::uint64_t members = plan.results[l]->lists().members().size();
    for (const FfnTensor& tensor : layer.tensors) {
      if (tensor.role == FfnRole::down_bias) continue;
      const std::uint64_t all = role_bytes(layer, tensor.role);
      std::uint64_t& wanted = bytes[plan.source.at(tensor.tensor)];
      wanted = wanted - all + all / static_cast<std::uint64_t>(layer.num_neurons) * members;
    }
  }
  return bytes;
}

}  // namespace

void check_coverage(const ConversionPlan& plan) {
  std::vector<std::uint64_t> covered(plan.source.tensors.size(), 0);
  for (const OutputTensor& tensor : plan.tensors) {
    if (const auto* copy = std::get_if<CopyPart>(&tensor.recipe))
      covered[copy->source] += copy->num_bytes;
    if (const auto* parts = std::get_if<std::vector<NeuronPart>>(&tensor.recipe))
      for (const NeuronPart& part : *parts) {
        const LayerInfo& layer = plan.source.layers[part.layer];
        const bool bias = part.role == FfnRole::gate_bias || part.role == FfnRole::up_bias;
        const std::uint64_t values =
            part.neurons.size() * (bias ? 1 : static_cast<std::uint64_t>(layer.hidden_size));
        const FfnTensor& from = *layer.find(part.role);
        covered[plan.source.at(from.tensor)] += values * size_of(from.dtype);
      }
  }
  const std::vector<std::uint64_t> wanted = bytes_to_place(plan);
  // A changed tensor is whole again in the originals; its copies elsewhere come on top.
  for (const std::size_t original : plan.originals) covered[original] = wanted[original];
  for (std::size_t i = 0; i < covered.size(); ++i)
    if (covered[i] != wanted[i])
      throw InternalError(fmt::format("tensor '{}': {} of {} bytes have a place in host '{}'",
                                      plan.source.tensors[i].spec.name, covered[i], wanted[i],
                                      plan.host));
}

}  // namespace moefy
