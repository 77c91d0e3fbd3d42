#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "moefy/core/dtype.hpp"
#include "moefy/core/file.hpp"

namespace moefy {

/// A tensor to be written.
struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t num_bytes() const;  ///< InternalError on overflow
};

/// The shards of an output checkpoint, fixed before anything is written, so that they do not depend
/// on who writes what.
struct ShardPlan {
  struct File {
    std::string file_name;            ///< model-00001-of-00003.safetensors
    std::vector<TensorSpec> tensors;  ///< in file order
  };
  std::vector<File> files;
  std::uint64_t total_bytes = 0;
};

/// Cuts `tensors` (in the given order) into files of at most `shard_size` bytes of data; a larger
/// tensor gets a file of its own.
ShardPlan plan_shards(std::vector<TensorSpec> tensors, std::uint64_t shard_size);

/// Streams one safetensors file: the header is known from the specs, data is written in pieces at
/// any place and in any order.
class SafetensorsWriter {
 public:
  /// metadata always gets format="pt".
  SafetensorsWriter(std::filesystem::path path, std::span<const TensorSpec> tensors,
                    std::map<std::string, std::string> metadata = {});
  /// Writes part of tensor number `tensor` (index into the specs) from `offset` within it.
  void write(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> bytes);
  /// Checks that every byte was written once (count), fsyncs, closes.
  void finish();

 private:
  WritableFile file_;
  std::vector<std::uint64_t> begin_;
  std::vector<std::uint64_t> left_;
  std::uint64_t end_ = 0;
  std::vector<std::string> names_;
};

/// model.safetensors.index.json for the plan; always written, also for one shard.
void write_index(const std::filesystem::path& directory, const ShardPlan& plan);

}  // namespace moefy
