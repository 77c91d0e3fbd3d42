#pragma once

#include "moefy/checkpoint/writer.hpp"
#include "produce.hpp"

namespace moefy {

/// Writes the tensors from `first_tensor` on, in order, into one file.
class FileSink final : public ByteSink {
 public:
  FileSink(SafetensorsWriter& writer, std::size_t first_tensor)
      : writer_(writer), first_tensor_(first_tensor) {}
  void put(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> bytes) override {
    writer_.write(tensor - first_tensor_, offset, bytes);
  }

 private:
  SafetensorsWriter& writer_;
  std::size_t first_tensor_;
};

}  // namespace moefy
