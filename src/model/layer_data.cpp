#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

namespace {

// 64 x 64 floats: a tile and its raw lines stay in the L1 cache. The rows of the tile are further
// apart than they are long, so that a column of it does not fall into one cache set.
constexpr std::size_t kTile = 64;
constexpr std::size_t kTileStride = kTile + 16;

const FfnTensor& tensor_of(const LayerInfo& layer, FfnRole role) {
  const FfnTensor* tensor = layer.find(role);
  require(tensor != nullptr, "the layer has the role");
  return *tensor;
}

bool is_matrix(FfnRole role) {
  return role == FfnRole::gate || role == FfnRole::up || role == FfnRole::down;
}

/// `row` and `column` of the role's own part of the tensor.
[[noreturn]] void fail_non_finite(const LayerInfo& layer, const FfnTensor& tensor, std::size_t row,
                                  std::size_t column, float value) {
  const auto begin = static_cast<std::size_t>(tensor.slice_begin);
  const bool sliced_rows = tensor.neuron_first && is_matrix(tensor.role);
  throw InputError(fmt::format(
      "layer {}: tensor '{}' holds {} at row {}, column {}; the weights are damaged, or "
      "training diverged",
      layer.index, tensor.tensor, value, row + (sliced_rows ? begin : 0),
      column + (sliced_rows ? 0 : begin)));
}

/// Finds the first bad value in file order, once a tile is known to have one. `raw` begins with row
/// `first_row` of the role.
[[noreturn]] void report_non_finite(const LayerInfo& layer, const FfnTensor& tensor,
                                    std::span<const std::byte> raw, std::size_t file_cols,
                                    std::size_t first_row) {
  const std::size_t size = size_of(tensor.dtype);
  std::vector<float> row(file_cols);
  for (std::size_t r = 0; r * file_cols * size < raw.size(); ++r) {
    widen(tensor.dtype, raw.subspan(r * file_cols * size, file_cols * size), row);
    if (const auto column = first_non_finite(row)) {
      fail_non_finite(layer, tensor, first_row + r, *column, row[*column]);
    }
  }
  throw InternalError("a non-finite value was seen once and not again");
}

/// Same order in the file and in memory: in pieces that are still cached when they are checked.
bool widen_straight(DType dtype, std::span<const std::byte> raw, std::span<float> out) {
  constexpr std::size_t kPiece = 4096;
  const std::size_t size = size_of(dtype);
  for (std::size_t begin = 0; begin < out.size(); begin += kPiece) {
    const std::size_t count = std::min(kPiece, out.size() - begin);
    const auto piece = out.subspan(begin, count);
    widen(dtype, raw.subspan(begin * size, count * size), piece);
    if (first_non_finite(piece)) return false;
  }
  return true;
}

/// raw is [rows, n] of [d, n] from row `first_row` on, out [n, d].
bool widen_transposed(DType dtype, std::span<const std::byte> raw, std::size_t first_row,
                      MatrixView<float> out) {
  const std::size_t n = out.rows;
  const std::size_t d = out.cols;
  const std::size_t size = size_of(dtype);
  const std::size_t file_rows = raw.size() / (n * size);
  alignas(64) std::array<float, kTile * kTileStride> tile;
  for (std::size_t row = 0; row < file_rows; row += kTile) {
    const std::size_t rows = std::min(kTile, file_rows - row);
    for (std::size_t column = 0; column < n; column += kTile) {
      const std::size_t columns = std::min(kTile, n - column);
      for (std::size_t r = 0; r < rows; ++r) {
        const std::span<float> line(tile.data() + r * kTileStride, columns);
        widen(dtype, raw.subspan(((row + r) * n + column) * size, columns * size), line);
        if (first_non_finite(line)) return false;
      }
      for (std::size_t c = 0; c < columns; ++c) {
        float* to = out.data + (column + c) * d + first_row + row;
        for (std::size_t r = 0; r < rows; ++r) to[r] = tile[r * kTileStride + c];
      }
    }
  }
  return true;
}

}  // namespace

void read_role(const Checkpoint& checkpoint, const LayerInfo& layer, FfnRole role,
               std::span<std::byte> out) {
  require(out.size() == role_bytes(layer, role), "the buffer has the size of the role");
  read_role_part(checkpoint, layer, role, 0, out);
}

void read_role_part(const Checkpoint& checkpoint, const LayerInfo& layer, FfnRole role,
                    std::uint64_t offset, std::span<std::byte> out) {
  const FfnTensor& slice = tensor_of(layer, role);
  const TensorInfo& tensor = checkpoint.at(slice.tensor);
  const std::uint64_t all = role_bytes(layer, role);
  require(offset <= all && out.size() <= all - offset, "the part lies within the role");
  const std::size_t size = size_of(slice.dtype);
  const auto hidden = static_cast<std::uint64_t>(is_matrix(role) ? layer.hidden_size : 1);
  const auto begin = static_cast<std::uint64_t>(slice.slice_begin);
  if (slice.neuron_first || role == FfnRole::down_bias || all == tensor.num_bytes) {
    checkpoint.read(tensor, begin * hidden * size + offset, out);
    return;
  }
  const std::uint64_t row_bytes = static_cast<std::uint64_t>(layer.num_neurons) * size;
  const auto total = static_cast<std::uint64_t>(slice.slice_total);
  while (!out.empty()) {
    const std::uint64_t row = offset / row_bytes;
    const std::uint64_t within = offset % row_bytes;
    const auto part = std::min<std::uint64_t>(out.size(), row_bytes - within);
    checkpoint.read(tensor, (row * total + begin) * size + within, out.first(part));
    out = out.subspan(part);
    offset += part;
  }
}

void widen_role(const LayerInfo& layer, FfnRole role, std::span<const std::byte> raw,
                MatrixView<float> out) {
  const FfnTensor& tensor = tensor_of(layer, role);
  require(raw.size() == role_bytes(layer, role), "the raw bytes have the size of the role");
  require(out.size() * size_of(tensor.dtype) == raw.size(), "the matrix has the size of the role");
  const bool straight = tensor.neuron_first || !is_matrix(role);
  if (is_matrix(role))
    require(out.rows == static_cast<std::size_t>(layer.num_neurons), "a row for each neuron");
  const bool finite = straight ? widen_straight(tensor.dtype, raw, out.values())
                               : widen_transposed(tensor.dtype, raw, 0, out);
  if (finite) return;
  const std::size_t file_cols = !is_matrix(role) ? out.size() : straight ? out.cols : out.rows;
  report_non_finite(layer, tensor, raw, file_cols, 0);
}

RawShape raw_shape(const LayerInfo& layer, FfnRole role) {
  require(is_matrix(role), "the role is a matrix");
  const FfnTensor& tensor = tensor_of(layer, role);
  return {tensor.dtype, static_cast<std::size_t>(layer.num_neurons),
          static_cast<std::size_t>(layer.hidden_size), !tensor.neuron_first};
}

void throw_not_finite(const LayerInfo& layer, FfnRole role, std::size_t index, float value) {
  const RawShape shape = raw_shape(layer, role);
  const std::size_t file_cols = shape.transposed ? shape.num_rows : shape.dim;
  fail_non_finite(layer, tensor_of(layer, role), index / file_cols, index % file_cols, value);
}

void widen_role_from(const LayerInfo& layer, FfnRole role, const RawSource& next,
                     AlignedBuffer<std::byte>& scratch, MatrixView<float> out) {
  constexpr std::size_t kBlockValues = std::size_t{1} << 15;  // raw block and rows stay in L2
  const FfnTensor& tensor = tensor_of(layer, role);
  require(out.size() * size_of(tensor.dtype) == role_bytes(layer, role) &&
              (!is_matrix(role) || out.rows == static_cast<std::size_t>(layer.num_neurons)),
          "a row for each neuron, or one of a bias");
  const bool straight = tensor.neuron_first || !is_matrix(role);
  const std::size_t file_rows = straight ? out.rows : out.cols;
  const std::size_t file_cols = straight ? out.cols : out.rows;
  const std::size_t block = straight ? std::max<std::size_t>(1, kBlockValues / file_cols) : kTile;
  for (std::size_t row = 0; row < file_rows; row += block) {
    const std::size_t values = std::min(block, file_rows - row) * file_cols;
    if (straight && tensor.dtype == DType::f32) {
      const std::span<float> part = out.values().subspan(row * file_cols, values);
      const std::span<std::byte> raw = std::as_writable_bytes(part);
      next(raw);
      if (first_non_finite(part)) report_non_finite(layer, tensor, raw, file_cols, row);
      continue;
    }
    scratch.resize(values * size_of(tensor.dtype));
    next(scratch.span());
    const bool finite = straight ? widen_straight(tensor.dtype, scratch.span(),
                                                  out.values().subspan(row * file_cols, values))
                                 : widen_transposed(tensor.dtype, scratch.span(), row, out);
    if (!finite) report_non_finite(layer, tensor, scratch.span(), file_cols, row);
  }
}

Digest source_fingerprint(const Checkpoint& checkpoint, std::span<const Digest> layers) {
  Hasher hasher;
  hasher.add_text(checkpoint.config_text());
  for (const Digest& layer : layers) {
    hasher.add_number(layer.low);
    hasher.add_number(layer.high);
  }
  return hasher.digest();
}

LayerReader::LayerReader(const Checkpoint& checkpoint, const LayerInfo& layer)
    : checkpoint_(checkpoint), layer_(layer) {
  for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down, FfnRole::gate_bias,
                             FfnRole::up_bias, FfnRole::down_bias}) {
    const FfnTensor* place = layer.find(role);
    if (!place) continue;
    const TensorInfo* tensor = &checkpoint.at(place->tensor);
    // Both halves of a fused tensor name it.
    if (std::find(tensors_.begin(), tensors_.end(), tensor) == tensors_.end())
      tensors_.push_back(tensor);
  }
}

void LayerReader::hash_description(const TensorInfo& tensor) {
  hasher_.add_text(tensor.name);
  hasher_.add_text(name_of(tensor.dtype));
  hasher_.add_number(tensor.shape.size());
  for (const std::int64_t extent : tensor.shape)
    hasher_.add_number(static_cast<std::uint64_t>(extent));
}

/// Whether the role is a whole tensor, and the one that the fingerprint takes next.
bool LayerReader::is_next(const FfnTensor& slice) const {
  return next_ < tensors_.size() && tensors_[next_]->name == slice.tensor &&
         role_bytes(layer_, slice.role) == tensors_[next_]->num_bytes;
}

void LayerReader::read_raw(FfnRole role, const std::function<void(const RawSource& next)>& take) {
  const FfnTensor& slice = tensor_of(layer_, role);
  const bool hashed = is_next(slice);
  if (hashed) {
    hash_description(checkpoint_.at(slice.tensor));
    ++next_;
  }
  std::uint64_t offset = 0;
  take([&](std::span<std::byte> raw) {
    read_role_part(checkpoint_, layer_, role, offset, raw);
    if (hashed) hasher_.add(raw);
    offset += raw.size();
  });
}

void LayerReader::read_rows(FfnRole role, AlignedBuffer<std::byte>& scratch,
                            MatrixView<float> out) {
  read_raw(role, [&](const RawSource& next) { widen_role_from(layer_, role, next, scratch, out); });
}

Digest LayerReader::fingerprint() {
  constexpr std::uint64_t kBlock = 256u << 10;
  std::vector<std::byte> buffer;
  for (; next_ < tensors_.size(); ++next_) {
    const TensorInfo& tensor = *tensors_[next_];
    hash_description(tensor);
    buffer.resize(std::max<std::size_t>(buffer.size(), std::min(kBlock, tensor.num_bytes)));
    for (std::uint64_t offset = 0; offset < tensor.num_bytes; offset += kBlock) {
      const auto block = std::span(buffer).first(std::min(kBlock, tensor.num_bytes - offset));
      checkpoint_.read(tensor, offset, block);
      hasher_.add(block);
    }
  }
  return hasher_.digest();
}

Digest layer_fingerprint(const Checkpoint& checkpoint, const LayerInfo& layer) {
  return LayerReader(checkpoint, layer).fingerprint();
}

}  // namespace moefy
