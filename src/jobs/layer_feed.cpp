#include "layer_feed.hpp"

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr std::uint64_t kPartAlignment = 64;

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
}

}  // namespace

LayerPayload::LayerPayload(const SplitConfig& config, const LayerInfo& layer) : layer_(layer) {
  for (const FfnRole role : roles_read(config, layer)) {
    const std::uint64_t bytes = role_bytes(layer, role);
    parts_.push_back({role, num_bytes_, bytes});
    num_bytes_ = aligned(num_bytes_ + bytes);
  }
}

const LayerPayload::Part& LayerPayload::part(FfnRole role) const {
  for (const Part& part : parts_)
    if (part.role == role) return part;
  throw InternalError("a method asked for the " + to_string(role) +
                      " matrix, which it did not announce");
}

void LayerPayload::load(const Checkpoint& checkpoint, std::span<std::byte> payload) const {
  for (const Part& part : parts_)
    read_role(checkpoint, layer_, part.role, payload.subspan(part.offset, part.bytes));
}

RowSource LayerPayload::source(std::span<const std::byte> payload) const {
  return [this, payload](FfnRole role, MatrixView<float> out) {
    const Part& wanted = part(role);
    widen_role(layer_, role, payload.subspan(wanted.offset, wanted.bytes), out);
  };
}

RowSource file_source(LayerReader& reader, AlignedBuffer<std::byte>& buffer) {
  return [&](FfnRole role, MatrixView<float> out) { reader.read_rows(role, buffer, out); };
}

}  // namespace moefy
