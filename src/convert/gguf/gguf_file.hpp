#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moefy/core/dtype.hpp"
#include "moefy/core/file.hpp"

namespace moefy::gguf {

/// The key-value pairs at the head of a GGUF file.
class Metadata {
 public:
  void add(std::string_view key, std::uint32_t value);
  void add(std::string_view key, float value);
  void add(std::string_view key, bool value);
  void add(std::string_view key, const std::string& value);
  void add(std::string_view key, const char* value) { add(key, std::string(value)); }
  void add(std::string_view key, std::span<const std::string> values);
  void add(std::string_view key, std::span<const std::int32_t> values);

  std::uint64_t count() const { return count_; }
  std::string_view bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, std::uint32_t type);
  std::uint64_t count_ = 0;
  std::string bytes_;
};

struct TensorSpec {
  std::string name;
  std::vector<std::uint64_t> shape;  ///< slowest dimension first
  DType dtype = DType::f32;          ///< f32, f16 or bf16

  std::uint64_t num_values() const;
  std::uint64_t num_bytes() const { return num_values() * size_of(dtype); }
};

/// Bytes of the whole file.
std::uint64_t file_bytes(const Metadata& metadata, std::span<const TensorSpec> tensors);

/// Writes a file of version 3 from front to back. Each tensor's bytes are given in order.
class Writer {
 public:
  Writer(std::filesystem::path path, const Metadata& metadata, std::span<const TensorSpec> tensors);
  /// The next bytes of the tensor that is being written.
  void write(std::span<const std::byte> bytes);
  /// The tensor is complete; the next one begins.
  void finish_tensor();
  /// All tensors are; fsync and close.
  void finish();

 private:
  WritableFile file_;
  std::vector<TensorSpec> tensors_;
  std::vector<std::uint64_t> begin_;  ///< of each tensor's data in the file
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;  ///< bytes of the current tensor
};

}  // namespace moefy::gguf
