#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/checkpoint/safetensors_file.hpp"
#include "plan.hpp"

namespace moefy {

/// OUT/moefy/originals.safetensors: tensors whose change cannot be undone, as they were. Nothing is
/// written if there are none.
void write_originals(const ConversionPlan& plan, const Checkpoint& checkpoint,
                     const std::filesystem::path& own_directory);

/// Reads them back. InputError if the file lacks one of the plan's originals or has another shape.
class Originals {
 public:
  Originals(const ConversionPlan& plan, const std::filesystem::path& output);
  void read(std::size_t source_tensor, std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::optional<SafetensorsFile> file_;
  std::vector<const TensorInfo*> info_;  ///< by source tensor
};

/// One sentence for each original that differs from the dense checkpoint's.
std::vector<std::string> compare_originals(const ConversionPlan& plan, const Checkpoint& dense,
                                           const std::filesystem::path& output);

}  // namespace moefy
