#include "moefy/model/ffn_layer.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRows = 256;

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

/// Calls body(row) for every row, in tiles.
template <class Body>
void for_rows(std::size_t rows, ThreadPool& threads, const Body& body) {
  threads.for_each((rows + kRows - 1) / kRows, [&](std::size_t tile) {
    for (std::size_t i = tile * kRows; i < std::min(rows, tile * kRows + kRows); ++i) body(i);
  });
}

void gather(std::span<const float> from, std::span<const std::int32_t> places,
            std::span<float> to) {
  for (std::size_t i = 0; i < places.size(); ++i) to[i] = from[static_cast<std::size_t>(places[i])];
}

/// √(left · right), as far as that is not negative by rounding.
float norm_of_product(std::span<const float> left, std::span<const float> right) {
  double sum = 0;
  for (std::size_t i = 0; i < left.size(); ++i)
    sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
  return static_cast<float>(std::sqrt(std::max(0.0, sum)));
}

void add_bias(std::span<float> row, std::span<const float> bias) {
  for (std::size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
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

void ffn_hidden(const FfnLayer& layer, MatrixView<const float> inputs, MatrixView<float> hidden,
                Matrix<float>& scratch, ThreadPool& threads) {
  const bool gated = layer.gate.rows() > 0;
  multiply_transposed(inputs, (gated ? layer.gate : layer.up).view(), hidden, threads);
  if (gated) {
    scratch.resize(hidden.rows, hidden.cols);
    multiply_transposed(inputs, layer.up.view(), scratch.view(), threads);
  }
  for_rows(hidden.rows, threads, [&](std::size_t t) {
    const std::span<float> row = hidden.row(t);
    add_bias(row, gated ? layer.gate_bias : layer.up_bias);
    apply_activation(layer.info.activation, row);
    if (!gated) return;
    const std::span<float> factor = scratch.row(t);
    add_bias(factor, layer.up_bias);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] *= factor[i];
  });
}

ExpertNorms::ExpertNorms(const FfnLayer& layer, std::vector<std::vector<std::int32_t>> members,
                         ThreadPool& threads)
    : members_(std::move(members)) {
  Matrix<float> rows;
  for (const std::vector<std::int32_t>& expert : members_) {
    rows.resize(expert.size(), layer.down.cols());
    for (std::size_t i = 0; i < expert.size(); ++i)
      std::ranges::copy(layer.down.row(static_cast<std::size_t>(expert[i])), rows.row(i).begin());
    gram_.emplace_back(expert.size(), expert.size());
    multiply_transposed(rows.view(), rows.view(), gram_.back().view(), threads);
  }
}

void ExpertNorms::compute(MatrixView<const float> hidden, MatrixView<float> out,
                          ThreadPool& threads) const {
  require(out.rows == hidden.rows && out.cols == members_.size(), "norms of every expert");
  // All experts of some tokens, while a cache holds what those tokens have.
  threads.for_each((hidden.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    const std::size_t first = tile * kRows;
    const std::size_t count = std::min(kRows, hidden.rows - first);
    Matrix<float> part;
    Matrix<float> product;
    for (std::size_t e = 0; e < members_.size(); ++e) {
      const std::vector<std::int32_t>& expert = members_[e];
      part.resize(count, expert.size());
      product.resize(count, expert.size());
      for (std::size_t t = 0; t < count; ++t) gather(hidden.row(first + t), expert, part.row(t));
      multiply_tile(part.view(), gram_[e].view(), product.view());
      for (std::size_t t = 0; t < count; ++t)
        out.row(first + t)[e] = norm_of_product(part.row(t), product.row(t));
    }
  });
}

}  // namespace moefy
