#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "moefy/partition/partition.hpp"

namespace moefy {

/// The four arrays of a partition, as Partition and the expert map have them.
struct PartitionArrays {
  std::span<const std::int32_t> labels;
  std::span<const std::int32_t> members;
  std::span<const std::int64_t> expert_offset;
  std::span<const std::int64_t> shared_offset;
};

/// Those of lists that need not be a partition.
struct ListArrays {
  std::size_t num_neurons = 0;
  std::span<const std::int32_t> members;
  std::span<const std::int64_t> expert_offset;
  std::span<const std::int64_t> shared_offset;
};

/// The first broken rule, in words that name the neuron or expert; nothing if all hold.
std::optional<std::string> find_label_problem(std::span<const std::int32_t> labels,
                                              std::size_t num_experts);
std::optional<std::string> find_array_problem(const PartitionArrays& arrays);
std::optional<std::string> find_list_problem(const ListArrays& arrays);
std::optional<std::string> find_size_problem(std::span<const std::int64_t> expert_offset,
                                             std::span<const SizeBounds> bounds);

}  // namespace moefy
