#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/split/splitter.hpp"

namespace moefy {

/// Where each matrix that a method reads lies in the bytes that travel for one layer: raw, in file
/// dtype, each beginning at a multiple of 64 bytes.
class LayerPayload {
 public:
  LayerPayload(const SplitConfig& config, const LayerInfo& layer);
  std::uint64_t num_bytes() const { return num_bytes_; }
  /// Reads all of them from the files (rank 0).
  void load(const Checkpoint& checkpoint, std::span<std::byte> payload) const;
  /// fp32 rows from the bytes that travelled.
  RowSource source(std::span<const std::byte> payload) const;

 private:
  struct Part {
    FfnRole role;
    std::uint64_t offset;
    std::uint64_t bytes;
  };
  const Part& part(FfnRole role) const;
  const LayerInfo& layer_;
  std::vector<Part> parts_;
  std::uint64_t num_bytes_ = 0;
};

/// fp32 rows straight from the files, through one reused buffer of raw bytes. Reader and buffer
/// must live as long as the source.
RowSource file_source(LayerReader& reader, AlignedBuffer<std::byte>& buffer);

}  // namespace moefy
