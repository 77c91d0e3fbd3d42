#include "moefy/model/ffn_layer.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRows = 256;

std::vector<float> read_bias(const Checkpoint& checkpoint, const LayerInfo& layer, FfnRole role,
                             std::size_t size) {
  if (!layer.find(role)) return {};
  std::vector<std::byte> raw(role_bytes(layer, role));
  read_role(checkpoint, layer, role, raw);
  std::vector<float> values(size);
  widen_role(layer, role, raw, {values.data(), 1, size});
  return values;
}

/// Calls body(row) for every row, in tiles.
template <class Body>
void for_rows(std::size_t rows, ThreadPool& threads, const Body& body) {
  threads.for_each((rows + kRows - 1) / kRows, [&](std::size_t tile) {
    for (std::size_t i = tile * kRows; i < std::min(rows, tile * kRows + kRows); ++i) body(i);
  });
}

void add_bias(std::span<float> row, std::span<const float> bias) {
  for (std::size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
}

}  // namespace

FfnLayer load_ffn_layer(const Checkpoint& checkpoint, const LayerInfo& layer) {
  FfnLayer loaded;
  loaded.info = layer;
  const auto neurons = static_cast<std::size_t>(layer.num_neurons);
  const auto width = static_cast<std::size_t>(layer.hidden_size);
  AlignedBuffer<std::byte> scratch;
  LayerReader reader(checkpoint, layer);
  const auto read = [&](FfnRole role, Matrix<float>& matrix) {
    if (!layer.find(role)) return;
    matrix.resize(neurons, width);
    reader.read_rows(role, scratch, matrix.view());
  };
  read(FfnRole::gate, loaded.gate);
  read(FfnRole::up, loaded.up);
  read(FfnRole::down, loaded.down);
  loaded.gate_bias = read_bias(checkpoint, layer, FfnRole::gate_bias, neurons);
  loaded.up_bias = read_bias(checkpoint, layer, FfnRole::up_bias, neurons);
  loaded.down_bias = read_bias(checkpoint, layer, FfnRole::down_bias, width);
  loaded.fingerprint = reader.fingerprint();
  return loaded;
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
  // One expert after the other, so that its tokens are one product with its Gram matrix.
  Matrix<float> part;
  Matrix<float> product;
  for (std::size_t e = 0; e < members_.size(); ++e) {
    const std::vector<std::int32_t>& expert = members_[e];
    part.resize(hidden.rows, expert.size());
    product.resize(hidden.rows, expert.size());
    for_rows(hidden.rows, threads, [&](std::size_t t) {
      const std::span<const float> from = hidden.row(t);
      const std::span<float> to = part.row(t);
      for (std::size_t i = 0; i < expert.size(); ++i)
        to[i] = from[static_cast<std::size_t>(expert[i])];
    });
    multiply(part.view(), gram_[e].view(), product.view(), threads);
    for_rows(hidden.rows, threads, [&](std::size_t t) {
      const std::span<const float> left = part.row(t);
      const std::span<const float> right = product.row(t);
      double sum = 0;
      for (std::size_t i = 0; i < left.size(); ++i)
        sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
      out.row(t)[e] = static_cast<float>(std::sqrt(std::max(0.0, sum)));
    });
  }
}

}  // namespace moefy
