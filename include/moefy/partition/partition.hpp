#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/partition/neuron_lists.hpp"

namespace moefy {

/// Label of a neuron that belongs to the shared (always-on) set.
inline constexpr std::int32_t kSharedLabel = -1;

/// Least and largest number of neurons an expert may have.
struct SizeBounds {
  std::size_t lower = 0;
  std::size_t upper = 0;
  bool operator==(const SizeBounds&) const = default;
};

/// Every neuron of a layer in exactly one expert or in the shared set. Its lists hold ascending ids
/// unless reordered (with_member_order). Immutable, and can only be built valid.
class Partition : public NeuronLists {
 public:
  /// No neurons and no experts.
  Partition() = default;

  /// `labels` [num_neurons]: expert of each neuron, or kSharedLabel. `num_shared` shared experts
  /// split the shared neurons (ascending ids) into lists whose sizes differ by at most one, larger
  /// ones first. Throws InputError naming the first offending neuron or expert: label out of range,
  /// size of an expert outside `bounds` [num_experts] (empty: any size), shared neurons without
  /// shared experts or the reverse.
  static Partition from_labels(std::vector<std::int32_t> labels, std::size_t num_experts,
                               std::size_t num_shared, std::span<const SizeBounds> bounds = {});

  /// [num_neurons]
  std::span<const std::int32_t> labels() const { return labels_; }

  /// The same partition with the neurons inside each list in the order of `rank` [num_neurons]
  /// (ascending; ties by id): `--order norm` and the like. InputError for NaN, naming the neuron.
  Partition with_member_order(std::span<const double> rank) const;

  /// Checks every promise of this class again and, where `bounds` [num_experts] are given, the
  /// sizes. Throws InternalError naming the first offending neuron or expert.
  void verify(std::span<const SizeBounds> bounds = {}) const;

  bool operator==(const Partition&) const = default;

 private:
  friend Partition partition_from_arrays(std::vector<std::int32_t>, std::vector<std::int32_t>,
                                         std::vector<std::int64_t>, std::vector<std::int64_t>);
  std::vector<std::int32_t> labels_;
};

/// Checks the arrays of a stored partition against each other: members a permutation, offsets
/// ascending, labels consistent. An empty `shared_offset` means no shared experts. Throws
/// InputError naming neuron and expert. Returns the partition.
Partition partition_from_arrays(std::vector<std::int32_t> labels, std::vector<std::int32_t> members,
                                std::vector<std::int64_t> expert_offset,
                                std::vector<std::int64_t> shared_offset);

/// Sizes of `num_lists` lists that share `num_neurons` as equally as possible: the first
/// num_neurons % num_lists have one more.
std::vector<std::size_t> equal_sizes(std::size_t num_neurons, std::size_t num_lists);

}  // namespace moefy
