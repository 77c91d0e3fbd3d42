#include "moefy/partition/partition.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "moefy/core/error.hpp"
#include "partition_rules.hpp"

namespace moefy {
namespace {

/// Counting sort of the neurons by label; the shared ones (label -1) come first.
void sort_by_label(std::span<const std::int32_t> labels, std::vector<std::int32_t>& members,
                   std::vector<std::int64_t>& expert_offset) {
  for (const std::int32_t label : labels) ++expert_offset[static_cast<std::size_t>(label + 1)];
  std::vector<std::size_t> next(expert_offset.size(), 0);
  std::int64_t sum = 0;
  for (std::size_t list = 0; list < expert_offset.size(); ++list) {
    next[list] = static_cast<std::size_t>(sum);
    sum += expert_offset[list];
    expert_offset[list] = sum;
  }
  members.resize(labels.size());
  for (std::size_t neuron = 0; neuron < labels.size(); ++neuron) {
    const auto list = static_cast<std::size_t>(labels[neuron] + 1);
    members[next[list]++] = static_cast<std::int32_t>(neuron);
  }
}

void throw_input_error(const std::optional<std::string>& problem) {
  if (problem) throw InputError("not a partition: " + *problem);
}

}  // namespace

Partition Partition::from_labels(std::vector<std::int32_t> labels, std::size_t num_experts,
                                 std::size_t num_shared, std::span<const SizeBounds> bounds) {
  throw_input_error(find_label_problem(labels, num_experts));
  Partition result;
  result.num_neurons_ = labels.size();
  result.labels_ = std::move(labels);
  result.expert_offset_.assign(num_experts + 1, 0);
  sort_by_label(result.labels_, result.members_, result.expert_offset_);
  throw_input_error(find_size_problem(result.expert_offset_, bounds));

  const auto num_shared_neurons = static_cast<std::size_t>(result.expert_offset_.front());
  if (num_shared_neurons > 0 && num_shared == 0) {
    throw InputError(
        fmt::format("not a partition: neuron {} is shared, but there are no shared "
                    "experts",
                    result.members_.front()));
  }
  if (num_shared > num_shared_neurons) {
    throw InputError(fmt::format("not a partition: {} shared experts, but {} shared neurons",
                                 num_shared, num_shared_neurons));
  }
  std::int64_t sum = 0;
  for (const std::size_t size : equal_sizes(num_shared_neurons, num_shared)) {
    sum += static_cast<std::int64_t>(size);
    result.shared_offset_.push_back(sum);
  }
  return result;
}

Partition Partition::with_member_order(std::span<const double> rank) const {
  require(rank.size() == num_neurons(), "with_member_order: one rank a neuron");
  for (std::size_t neuron = 0; neuron < rank.size(); ++neuron) {
    if (std::isnan(rank[neuron])) {
      throw InputError(fmt::format("neuron {} has no rank (NaN)", neuron));
    }
  }
  const auto earlier = [rank](std::int32_t a, std::int32_t b) {
    const double rank_a = rank[static_cast<std::size_t>(a)];
    const double rank_b = rank[static_cast<std::size_t>(b)];
    return rank_a != rank_b ? rank_a < rank_b : a < b;
  };
  Partition result = *this;
  const auto sort_lists = [&](std::span<const std::int64_t> offset) {
    for (std::size_t list = 0; list + 1 < offset.size(); ++list) {
      std::sort(result.members_.begin() + offset[list], result.members_.begin() + offset[list + 1],
                earlier);
    }
  };
  sort_lists(shared_offset_);
  sort_lists(expert_offset_);
  return result;
}

void Partition::verify(std::span<const SizeBounds> bounds) const {
  auto problem = find_array_problem({labels_, members_, expert_offset_, shared_offset_});
  if (!problem) problem = find_size_problem(expert_offset_, bounds);
  if (problem) throw InternalError("the partition is broken: " + *problem);
}

Partition partition_from_arrays(std::vector<std::int32_t> labels, std::vector<std::int32_t> members,
                                std::vector<std::int64_t> expert_offset,
                                std::vector<std::int64_t> shared_offset) {
  if (shared_offset.empty()) shared_offset.push_back(0);
  throw_input_error(find_array_problem({labels, members, expert_offset, shared_offset}));
  Partition result;
  result.num_neurons_ = labels.size();
  result.labels_ = std::move(labels);
  result.members_ = std::move(members);
  result.expert_offset_ = std::move(expert_offset);
  result.shared_offset_ = std::move(shared_offset);
  return result;
}

std::vector<std::size_t> equal_sizes(std::size_t num_neurons, std::size_t num_lists) {
  std::vector<std::size_t> sizes(num_lists, num_lists == 0 ? 0 : num_neurons / num_lists);
  if (num_lists == 0) return sizes;
  for (std::size_t list = 0; list < num_neurons % num_lists; ++list) ++sizes[list];
  return sizes;
}

}  // namespace moefy
