#include "moefy/partition/neuron_lists.hpp"

#include <utility>

#include "moefy/core/error.hpp"
#include "partition_rules.hpp"

namespace moefy {

namespace {

/// Appends the lists to `members` and the end of each to `offset`.
void append(std::span<const std::vector<std::int32_t>> lists, std::vector<std::int32_t>& members,
            std::vector<std::int64_t>& offset) {
  for (const std::vector<std::int32_t>& list : lists) {
    members.insert(members.end(), list.begin(), list.end());
    offset.push_back(static_cast<std::int64_t>(members.size()));
  }
}

std::span<const std::int32_t> list_at(std::span<const std::int32_t> members,
                                      std::span<const std::int64_t> offset, std::size_t list) {
  const auto begin = static_cast<std::size_t>(offset[list]);
  return members.subspan(begin, static_cast<std::size_t>(offset[list + 1]) - begin);
}

}  // namespace

NeuronLists NeuronLists::from_lists(std::size_t num_neurons,
                                    std::span<const std::vector<std::int32_t>> experts,
                                    std::span<const std::vector<std::int32_t>> shared) {
  std::vector<std::int32_t> members;
  std::vector<std::int64_t> shared_offset = {0};
  append(shared, members, shared_offset);
  std::vector<std::int64_t> expert_offset = {static_cast<std::int64_t>(members.size())};
  append(experts, members, expert_offset);
  return lists_from_arrays(num_neurons, std::move(members), std::move(expert_offset),
                           std::move(shared_offset));
}

std::span<const std::int32_t> NeuronLists::expert_members(std::size_t expert) const {
  require(expert < num_experts(), "expert_members: expert out of range");
  return list_at(members_, expert_offset_, expert);
}

std::span<const std::int32_t> NeuronLists::shared_members(std::size_t expert) const {
  require(expert < num_shared(), "shared_members: expert out of range");
  return list_at(members_, shared_offset_, expert);
}

std::span<const std::int32_t> NeuronLists::shared_members() const {
  return members().first(static_cast<std::size_t>(expert_offset_.front()));
}

void NeuronLists::verify() const {
  if (const auto problem =
          find_list_problem({num_neurons_, members_, expert_offset_, shared_offset_})) {
    throw InternalError("the lists of neurons are broken: " + *problem);
  }
}

NeuronLists lists_from_arrays(std::size_t num_neurons, std::vector<std::int32_t> members,
                              std::vector<std::int64_t> expert_offset,
                              std::vector<std::int64_t> shared_offset) {
  if (shared_offset.empty()) shared_offset.push_back(0);
  if (const auto problem =
          find_list_problem({num_neurons, members, expert_offset, shared_offset})) {
    throw InputError("not lists of neurons: " + *problem);
  }
  NeuronLists result;
  result.num_neurons_ = num_neurons;
  result.members_ = std::move(members);
  result.expert_offset_ = std::move(expert_offset);
  result.shared_offset_ = std::move(shared_offset);
  return result;
}

std::vector<std::int32_t> multiplicities(const NeuronLists& lists) {
  std::vector<std::int32_t> count(lists.num_neurons(), 0);
  for (const std::int32_t neuron : lists.members()) ++count[static_cast<std::size_t>(neuron)];
  return count;
}

std::vector<std::int32_t> omitted_neurons(const NeuronLists& lists) {
  const std::vector<std::int32_t> count = multiplicities(lists);
  std::vector<std::int32_t> omitted;
  for (std::size_t neuron = 0; neuron < count.size(); ++neuron) {
    if (count[neuron] == 0) omitted.push_back(static_cast<std::int32_t>(neuron));
  }
  return omitted;
}

}  // namespace moefy
