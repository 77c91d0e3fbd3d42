#include "partition_rules.hpp"

#include <fmt/format.h>

#include <limits>
#include <vector>

namespace moefy {
namespace {

constexpr std::size_t kMaxNeurons = std::numeric_limits<std::int32_t>::max();
/// A few bytes of a file may speak of any number of neurons that stand in no list; far above that
/// of every model.
constexpr std::size_t kMaxListedNeurons = std::size_t{1} << 24;

std::optional<std::string> find_offset_problem(std::span<const std::int64_t> offset,
                                               std::string_view list, std::int64_t first,
                                               std::int64_t last) {
  if (offset.front() != first) {
    return fmt::format("{}_offset begins with {}, expected {}", list, offset.front(), first);
  }
  for (std::size_t i = 0; i + 1 < offset.size(); ++i) {
    if (offset[i] > offset[i + 1]) {
      return fmt::format("{}_offset falls from {} to {} at expert {}", list, offset[i],
                         offset[i + 1], i);
    }
  }
  if (offset.back() != last) {
    return fmt::format("{}_offset ends with {}, expected {}", list, offset.back(), last);
  }
  return std::nullopt;
}

std::optional<std::string> find_member_problem(const PartitionArrays& arrays) {
  const std::size_t num_neurons = arrays.labels.size();
  std::vector<bool> seen(num_neurons, false);
  std::size_t next_expert = 0;
  for (std::size_t position = 0; position < num_neurons; ++position) {
    while (static_cast<std::int64_t>(position) >= arrays.expert_offset[next_expert]) ++next_expert;
    const std::int32_t expected =
        next_expert == 0 ? kSharedLabel : static_cast<std::int32_t>(next_expert) - 1;
    const std::int32_t neuron = arrays.members[position];
    if (neuron < 0 || static_cast<std::size_t>(neuron) >= num_neurons) {
      return fmt::format("member {} is neuron {}, but the layer has {} neurons", position, neuron,
                         num_neurons);
    }
    const auto id = static_cast<std::size_t>(neuron);
    if (seen[id]) return fmt::format("neuron {} is a member twice", neuron);
    seen[id] = true;
    if (arrays.labels[id] != expected) {
      return fmt::format("neuron {} has label {} but stands in the list of {}", neuron,
                         arrays.labels[id], expected);
    }
  }
  return std::nullopt;
}

/// The offsets of shared and routed lists that lie one behind the other in `num_members` members.
std::optional<std::string> find_offsets_problem(std::span<const std::int64_t> expert_offset,
                                                std::span<const std::int64_t> shared_offset,
                                                std::int64_t num_members) {
  const std::int64_t num_shared_neurons = expert_offset.front();
  if (num_shared_neurons < 0) {
    return fmt::format("expert_offset begins with {}", num_shared_neurons);
  }
  if (auto problem =
          find_offset_problem(expert_offset, "expert", num_shared_neurons, num_members)) {
    return problem;
  }
  if (shared_offset.size() <= 1 && num_shared_neurons > 0) {
    return fmt::format("{} shared neurons but no shared experts", num_shared_neurons);
  }
  return find_offset_problem(shared_offset, "shared", 0, num_shared_neurons);
}

/// `name` and number of the list, and its first neuron that is out of range or there already.
class ListRule {
 public:
  explicit ListRule(std::size_t num_neurons) : last_list_(num_neurons, 0) {}

  std::optional<std::string> find_problem(std::string_view name,
                                          std::span<const std::int32_t> members,
                                          std::span<const std::int64_t> offset) {
    for (std::size_t list = 0; list + 1 < offset.size(); ++list) {
      ++num_lists_;
      for (std::int64_t at = offset[list]; at < offset[list + 1]; ++at) {
        const std::int32_t neuron = members[static_cast<std::size_t>(at)];
        if (neuron < 0 || static_cast<std::size_t>(neuron) >= last_list_.size()) {
          return fmt::format("{} {} has neuron {}, but the layer has {} neurons", name, list,
                             neuron, last_list_.size());
        }
        std::size_t& last = last_list_[static_cast<std::size_t>(neuron)];
        if (last == num_lists_) {
          return fmt::format("{} {} has neuron {} twice", name, list, neuron);
        }
        last = num_lists_;
      }
    }
    return std::nullopt;
  }

 private:
  std::vector<std::size_t> last_list_;  ///< by neuron; 0: none yet
  std::size_t num_lists_ = 0;
};

}  // namespace

std::optional<std::string> find_label_problem(std::span<const std::int32_t> labels,
                                              std::size_t num_experts) {
  if (labels.size() > kMaxNeurons || num_experts > kMaxNeurons) {
    return fmt::format("{} neurons and {} experts; at most {} of each have a number", labels.size(),
                       num_experts, kMaxNeurons);
  }
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < kSharedLabel || labels[i] >= static_cast<std::int32_t>(num_experts)) {
      return fmt::format("neuron {} has label {}, expected {}..{}", i, labels[i], kSharedLabel,
                         static_cast<std::int64_t>(num_experts) - 1);
    }
  }
  return std::nullopt;
}

std::optional<std::string> find_array_problem(const PartitionArrays& arrays) {
  if (arrays.expert_offset.empty()) return "expert_offset is empty";
  const auto num_neurons = static_cast<std::int64_t>(arrays.labels.size());
  if (auto problem = find_label_problem(arrays.labels, arrays.expert_offset.size() - 1)) {
    return problem;
  }
  if (arrays.members.size() != arrays.labels.size()) {
    return fmt::format("{} members for {} neurons", arrays.members.size(), num_neurons);
  }
  if (auto problem =
          find_offsets_problem(arrays.expert_offset, arrays.shared_offset, num_neurons)) {
    return problem;
  }
  return find_member_problem(arrays);
}

std::optional<std::string> find_list_problem(const ListArrays& arrays) {
  if (arrays.expert_offset.empty()) return "expert_offset is empty";
  if (arrays.num_neurons > kMaxListedNeurons) {
    return fmt::format("{} neurons; lists are kept of {} at most", arrays.num_neurons,
                       kMaxListedNeurons);
  }
  if (auto problem = find_offsets_problem(arrays.expert_offset, arrays.shared_offset,
                                          static_cast<std::int64_t>(arrays.members.size()))) {
    return problem;
  }
  ListRule rule(arrays.num_neurons);
  if (auto problem = rule.find_problem("shared expert", arrays.members, arrays.shared_offset)) {
    return problem;
  }
  return rule.find_problem("expert", arrays.members, arrays.expert_offset);
}

std::optional<std::string> find_size_problem(std::span<const std::int64_t> expert_offset,
                                             std::span<const SizeBounds> bounds) {
  if (bounds.empty()) return std::nullopt;
  const std::size_t num_experts = expert_offset.size() - 1;
  if (bounds.size() != num_experts) {
    return fmt::format("{} size bounds for {} experts", bounds.size(), num_experts);
  }
  for (std::size_t expert = 0; expert < num_experts; ++expert) {
    const auto size = static_cast<std::size_t>(expert_offset[expert + 1] - expert_offset[expert]);
    if (size < bounds[expert].lower || size > bounds[expert].upper) {
      return fmt::format("expert {} has {} neurons, expected {}..{}", expert, size,
                         bounds[expert].lower, bounds[expert].upper);
    }
  }
  return std::nullopt;
}

}  // namespace moefy
