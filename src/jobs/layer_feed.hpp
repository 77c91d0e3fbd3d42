#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/schedule/layer_queue.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

/// The bytes that travel for one layer: the matrices in the order in which a method reads them,
/// raw, in file dtype. A rank widens them as they arrive and holds none of them.
class LayerPayload {
 public:
  LayerPayload(const SplitConfig& config, const LayerInfo& layer);
  std::uint64_t num_bytes() const { return num_bytes_; }
  /// Reads them from the files from byte `offset` on, as many as `piece` holds (rank 0).
  void load(const Checkpoint& checkpoint, std::uint64_t offset, std::span<std::byte> piece) const;
  /// fp32 rows from the bytes as they arrive, through one reused buffer of raw bytes. All three
  /// must live as long as the source.
  RowSource source(PayloadReader& payload, AlignedBuffer<std::byte>& buffer) const;

 private:
  struct Part {
    FfnRole role;
    std::uint64_t offset;
    std::uint64_t bytes;
  };
  const LayerInfo& layer_;
  std::vector<Part> parts_;
  std::uint64_t num_bytes_ = 0;
};

/// fp32 rows straight from the files, through one reused buffer of raw bytes. Reader and buffer
/// must live as long as the source.
RowSource file_source(LayerReader& reader, AlignedBuffer<std::byte>& buffer);

}  // namespace moefy
