#include "moefy/model/ffn_layer.hpp"

#include <algorithm>
#include <span>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// Where a layer keeps a role's values; `layer` may be const.
template <class Layer>
auto values_of(Layer& layer, FfnRole role) {
  switch (role) {
    case FfnRole::gate:
      return std::span(layer.gate.values());
    case FfnRole::up:
      return std::span(layer.up.values());
    case FfnRole::down:
      return std::span(layer.down.values());
    case FfnRole::gate_bias:
      return std::span(layer.gate_bias);
    case FfnRole::up_bias:
      return std::span(layer.up_bias);
    case FfnRole::down_bias:
      return std::span(layer.down_bias);
  }
  throw InternalError("unknown role of an FFN tensor");
}

void make_room(FfnLayer& layer, FfnRole role) {
  const auto neurons = static_cast<std::size_t>(layer.info.num_neurons);
  const auto width = static_cast<std::size_t>(layer.info.hidden_size);
  if (role == FfnRole::gate) layer.gate.resize(neurons, width);
  if (role == FfnRole::up) layer.up.resize(neurons, width);
  if (role == FfnRole::down) layer.down.resize(neurons, width);
  if (role == FfnRole::gate_bias) layer.gate_bias.resize(neurons);
  if (role == FfnRole::up_bias) layer.up_bias.resize(neurons);
  if (role == FfnRole::down_bias) layer.down_bias.resize(width);
}

void load_role(FfnLayer& layer, FfnRole role, const RowSource& source) {
  make_room(layer, role);
  const auto values = values_of(layer, role);
  const bool matrix = role == FfnRole::gate || role == FfnRole::up || role == FfnRole::down;
  const std::size_t rows = matrix ? static_cast<std::size_t>(layer.info.num_neurons) : 1;
  source(role, MatrixView<float>(values.data(), rows, values.size() / rows));
}

}  // namespace

std::vector<FfnRole> roles_of_neurons(const LayerInfo& layer) {
  std::vector<FfnRole> roles;
  for (const FfnRole role :
       {FfnRole::gate, FfnRole::up, FfnRole::down, FfnRole::gate_bias, FfnRole::up_bias})
    if (layer.find(role)) roles.push_back(role);
  return roles;
}

FfnLayer load_ffn_layer(const LayerInfo& layer, const RowSource& source) {
  FfnLayer loaded;
  loaded.info = layer;
  for (const FfnRole role : roles_of_neurons(layer)) load_role(loaded, role, source);
  return loaded;
}

FfnLayer load_ffn_layer(const Checkpoint& checkpoint, const LayerInfo& layer) {
  AlignedBuffer<std::byte> scratch;
  LayerReader reader(checkpoint, layer);
  const RowSource source = [&](FfnRole role, MatrixView<float> out) {
    reader.read_rows(role, scratch, out);
  };
  FfnLayer loaded = load_ffn_layer(layer, source);
  if (layer.find(FfnRole::down_bias)) load_role(loaded, FfnRole::down_bias, source);
  loaded.fingerprint = reader.fingerprint();
  return loaded;
}

RowSource rows_of(const FfnLayer& layer) {
  return [&layer](FfnRole role, MatrixView<float> out) {
    std::ranges::copy(values_of(layer, role), out.values().begin());
  };
}

FfnOnBackend::FfnOnBackend(const FfnLayer& layer, LinearAlgebra& algebra)
    : layer_(layer),
      algebra_(algebra),
      activation_(activation_named(layer.info.activation)),
      gate_(copied(layer.gate)),
      up_(copied(layer.up)),
      down_(copied(layer.down)),
      gate_bias_(copied(layer.gate_bias)),
      up_bias_(copied(layer.up_bias)) {}

void FfnOnBackend::compute_hidden(const BackendMatrix& inputs, BackendMatrix& hidden) const {
  algebra_.ffn_hidden({gate_.get(), up_.get(), gate_bias_.get(), up_bias_.get(), activation_},
                      inputs, hidden);
}

std::unique_ptr<BackendMatrix> FfnOnBackend::copied(const Matrix<float>& matrix) const {
  if (matrix.rows() == 0) return nullptr;
  std::unique_ptr<BackendMatrix> copy = algebra_.make_matrix();
  copy->assign(matrix.view());
  return copy;
}

std::unique_ptr<BackendMatrix> FfnOnBackend::copied(const std::vector<float>& bias) const {
  if (bias.empty()) return nullptr;
  std::unique_ptr<BackendMatrix> copy = algebra_.make_matrix();
  copy->assign({bias.data(), 1, bias.size()});
  return copy;
}

}  // namespace moefy
