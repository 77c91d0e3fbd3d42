#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moefy {

/// Which neurons each expert of a layer has: lists of neuron ids, in which a neuron may stand
/// several times or not at all, but never twice in one list (kind "sharing" of the map; Partition
/// promises more). Immutable, and can only be built valid.
class NeuronLists {
 public:
  /// No neurons and no experts.
  NeuronLists() = default;

  /// The lists of the routed experts and of the shared (always-on) ones, in their given order.
  /// Throws InputError naming list and neuron: an id outside 0 .. num_neurons - 1, or twice in one
  /// list.
  static NeuronLists from_lists(std::size_t num_neurons,
                                std::span<const std::vector<std::int32_t>> experts,
                                std::span<const std::vector<std::int32_t>> shared = {});

  /// Of the layer, members of a list or not.
  std::size_t num_neurons() const { return num_neurons_; }
  std::size_t num_experts() const { return expert_offset_.size() - 1; }
  std::size_t num_shared() const { return shared_offset_.size() - 1; }

  /// Neuron ids of all lists: shared ones first, then expert 0, 1, ….
  std::span<const std::int32_t> members() const { return members_; }
  /// [num_experts + 1]: where each expert begins in members.
  std::span<const std::int64_t> expert_offset() const { return expert_offset_; }
  /// [num_shared + 1]: where each shared expert begins in members.
  std::span<const std::int64_t> shared_offset() const { return shared_offset_; }
  std::span<const std::int32_t> expert_members(std::size_t expert) const;
  /// Of one shared expert.
  std::span<const std::int32_t> shared_members(std::size_t expert) const;
  /// Of all shared experts.
  std::span<const std::int32_t> shared_members() const;

  /// Checks every promise of this class again. Throws InternalError naming list and neuron.
  void verify() const;

  bool operator==(const NeuronLists&) const = default;

 protected:
  std::size_t num_neurons_ = 0;
  std::vector<std::int32_t> members_;
  std::vector<std::int64_t> expert_offset_ = {0};
  std::vector<std::int64_t> shared_offset_ = {0};

 private:
  friend NeuronLists lists_from_arrays(std::size_t, std::vector<std::int32_t>,
                                       std::vector<std::int64_t>, std::vector<std::int64_t>);
};

/// Checks the arrays of stored lists: ids in range and once a list, offsets ascending. An empty
/// `shared_offset` means no shared experts. Throws InputError naming list and neuron.
NeuronLists lists_from_arrays(std::size_t num_neurons, std::vector<std::int32_t> members,
                              std::vector<std::int64_t> expert_offset,
                              std::vector<std::int64_t> shared_offset);

/// [num_neurons]: in how many lists each neuron stands; 1 everywhere for a partition.
std::vector<std::int32_t> multiplicities(const NeuronLists& lists);

/// Neurons that stand in no list, ascending.
std::vector<std::int32_t> omitted_neurons(const NeuronLists& lists);

}  // namespace moefy
