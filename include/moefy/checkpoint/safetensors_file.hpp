#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/hash.hpp"

namespace moefy {

/// One safetensors file by itself, opened for reading by pread; its header is validated. Reading is
/// safe from several threads.
class SafetensorsFile {
 public:
  /// InputError (not a safetensors file, truncated, hostile header) or IoError.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  std::uint64_t size() const { return file_.size(); }
  const std::string& header() const { return header_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// In file order.
  std::span<const TensorInfo> tensors() const { return tensors_; }
  /// The tensor with that name, or nullptr.
  const TensorInfo* find(std::string_view name) const;
  /// Fills `out` with the tensor's bytes from `offset` within it. Errors name file and tensor.
  void read(const TensorInfo& tensor, std::uint64_t offset, std::span<std::byte> out) const;

 private:
  InputFile file_;
  std::string header_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorInfo> tensors_;
};

/// XXH3-128 over name, dtype, shape and bytes of every tensor, in file order.
Digest content_fingerprint(const SafetensorsFile& file);

}  // namespace moefy
