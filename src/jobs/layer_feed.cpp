#include "layer_feed.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

LayerPayload::LayerPayload(const SplitConfig& config, const LayerInfo& layer, bool kept)
    : layer_(layer) {
  for (const FfnRole role : roles_read(config, layer)) {
    if (kept && std::ranges::find(parts_, role, &Part::role) != parts_.end()) continue;
    parts_.push_back({role, num_bytes_, role_bytes(layer, role)});
    num_bytes_ += parts_.back().bytes;
  }
}

void LayerPayload::load(const Checkpoint& checkpoint, std::uint64_t offset,
                        std::span<std::byte> piece) const {
  for (const Part& part : parts_) {
    if (piece.empty()) return;
    if (offset >= part.offset + part.bytes) continue;
    const std::uint64_t within = offset - part.offset;
    const auto size = std::min<std::uint64_t>(piece.size(), part.bytes - within);
    read_role_part(checkpoint, layer_, part.role, within, piece.first(size));
    piece = piece.subspan(size);
    offset += size;
  }
  require(piece.empty(), "a piece lies within the payload");
}

RowSource LayerPayload::source(PayloadReader& payload, AlignedBuffer<std::byte>& buffer) const {
  return [this, &payload, &buffer, next = std::size_t{0}](FfnRole role,
                                                          MatrixView<float> out) mutable {
    require(next < parts_.size() && parts_[next].role == role,
            "a method reads the matrices in the order that it announced");
    ++next;
    const auto more = [&](std::span<std::byte> raw) { payload.read(raw); };
    widen_role_from(layer_, role, more, buffer, out);
  };
}

RowSource file_source(LayerReader& reader, AlignedBuffer<std::byte>& buffer) {
  return [&](FfnRole role, MatrixView<float> out) { reader.read_rows(role, buffer, out); };
}

}  // namespace moefy
