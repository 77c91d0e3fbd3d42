#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moefy {

/// Label of a neuron that belongs to the shared (always-on) set.
inline constexpr std::int32_t kSharedLabel = -1;

/// Least and largest number of neurons an expert may have.
struct SizeBounds {
  std::size_t lower = 0;
  std::size_t upper = 0;
  bool operator==(const SizeBounds&) const = default;
};

/// Every neuron of a layer in exactly one expert or in the shared set. Immutable, and can only be
/// built valid.
class Partition {
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

  std::size_t num_neurons() const { return labels_.size(); }
  std::size_t num_experts() const { return expert_offset_.size() - 1; }
  std::size_t num_shared() const { return shared_offset_.size() - 1; }

  /// [num_neurons]
  std::span<const std::int32_t> labels() const { return labels_; }
  /// [num_neurons]: shared first, then expert 0, 1, …; ascending neuron id inside each unless
  /// reordered (with_member_order).
  std::span<const std::int32_t> members() const { return members_; }
  /// [num_experts + 1]: where each expert begins in members.
  std::span<const std::int64_t> expert_offset() const { return expert_offset_; }
  /// [num_shared + 1]: where each shared expert begins in members.
  std::span<const std::int64_t> shared_offset() const { return shared_offset_; }
  std::span<const std::int32_t> expert_members(std::size_t expert) const;
  std::span<const std::int32_t> shared_members() const;

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
  std::vector<std::int32_t> members_;
  std::vector<std::int64_t> expert_offset_ = {0};
  std::vector<std::int64_t> shared_offset_ = {0};
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
