#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/schedule/layer_queue.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

/// The bytes that travel for one layer: matrices in the order in which they are read, raw, in file
/// dtype.
class LayerPayload {
 public:
  struct Part {
    FfnRole role;
    std::uint64_t offset;
    std::uint64_t bytes;
  };
  /// `kept`: the rank keeps the bytes of the layer, so that nothing is sent twice; else it widens
  /// them as they arrive, in the order in which the method of `config` reads them.
  LayerPayload(const SplitConfig& config, const LayerInfo& layer, bool kept);
  const LayerInfo& layer() const { return layer_; }
  std::span<const Part> parts() const { return parts_; }
  std::uint64_t num_bytes() const { return num_bytes_; }
  /// Reads them from the files from byte `offset` on, as many as `piece` holds (rank 0).
  void load(const Checkpoint& checkpoint, std::uint64_t offset, std::span<std::byte> piece) const;
  /// fp32 rows from the bytes as they arrive, through one reused buffer of raw bytes. All three
  /// must live as long as the source.
  RowSource source(PayloadReader& payload, AlignedBuffer<std::byte>& buffer) const;

 private:
  const LayerInfo& layer_;
  std::vector<Part> parts_;
  std::uint64_t num_bytes_ = 0;
};

/// fp32 rows straight from the files, through one reused buffer of raw bytes. Reader and buffer
/// must live as long as the source.
RowSource file_source(LayerReader& reader, AlignedBuffer<std::byte>& buffer);

}  // namespace moefy
