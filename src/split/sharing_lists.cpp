#include "sharing_lists.hpp"

#include <algorithm>

#include "importance_scores.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// The first `width` neurons of every expert's order that are still free, and how many experts'
/// windows each neuron stands in; kept up to date as neurons are taken.
class Windows {
 public:
  Windows(const Matrix<double>& scores, std::size_t width)
      : order_(neurons_by_score(scores)),
        end_(order_.size(), 0),
        inside_(order_.size(), std::vector<bool>(scores.cols(), false)),
        count_(scores.cols(), 0),
        is_free_(scores.cols(), true) {
    for (std::size_t e = 0; e < order_.size(); ++e)
      for (std::size_t i = 0; i < width; ++i) extend(e);
  }

  void take(std::int32_t neuron) {
    const auto id = static_cast<std::size_t>(neuron);
    is_free_[id] = false;
    count_[id] = 0;
    for (std::size_t e = 0; e < order_.size(); ++e)
      if (inside_[e][id]) extend(e);
  }

  /// The free neurons in most windows, ascending.
  std::vector<std::int32_t> most_wanted() const {
    const std::size_t most = *std::ranges::max_element(count_);
    std::vector<std::int32_t> found;
    for (std::size_t id = 0; id < count_.size(); ++id)
      if (is_free_[id] && count_[id] == most) found.push_back(static_cast<std::int32_t>(id));
    return found;
  }

 private:
  /// Lets the next free neuron of the order in, if there is one.
  void extend(std::size_t expert) {
    std::size_t& end = end_[expert];
    const std::vector<std::int32_t>& order = order_[expert];
    while (end < order.size() && !is_free_[static_cast<std::size_t>(order[end])]) ++end;
    if (end == order.size()) return;
    const auto id = static_cast<std::size_t>(order[end++]);
    inside_[expert][id] = true;
    ++count_[id];
  }

  std::vector<std::vector<std::int32_t>> order_;
  std::vector<std::size_t> end_;  ///< by expert: where its window ends in its order
  std::vector<std::vector<bool>> inside_;
  std::vector<std::size_t> count_;
  std::vector<bool> is_free_;
};

/// The first `width` neurons of each order that are not in `taken`.
std::vector<std::vector<std::int32_t>> best_of_the_rest(const Matrix<double>& scores,
                                                        std::span<const std::int32_t> taken,
                                                        std::size_t width) {
  std::vector<bool> is_taken(scores.cols(), false);
  for (const std::int32_t neuron : taken) is_taken[static_cast<std::size_t>(neuron)] = true;
  std::vector<std::vector<std::int32_t>> lists = neurons_by_score(scores);
  for (std::vector<std::int32_t>& list : lists) {
    std::erase_if(list,
                  [&](std::int32_t neuron) { return is_taken[static_cast<std::size_t>(neuron)]; });
    require(width <= list.size(), "fewer neurons are left than an expert takes");
    list.resize(width);
  }
  return lists;
}

}  // namespace

std::vector<std::int32_t> wanted_by_most(const Matrix<double>& scores, std::size_t width,
                                         std::size_t wanted) {
  require(width >= 1 && wanted <= scores.cols(), "wanted_by_most: more neurons than there are");
  std::vector<std::int32_t> chosen;
  if (wanted == 0) return chosen;
  const std::vector<double> sum = summed_scores(scores);
  Windows windows(scores, width);
  while (chosen.size() < wanted) {
    std::vector<std::int32_t> candidates = windows.most_wanted();
    std::ranges::stable_sort(candidates, [&](std::int32_t a, std::int32_t b) {
      return sum[static_cast<std::size_t>(a)] > sum[static_cast<std::size_t>(b)];
    });
    candidates.resize(std::min(candidates.size(), wanted - chosen.size()));
    for (const std::int32_t neuron : candidates) windows.take(neuron);
    chosen.insert(chosen.end(), candidates.begin(), candidates.end());
  }
  return chosen;
}

NeuronLists inner_sharing(const Matrix<double>& scores, std::size_t width) {
  return NeuronLists::from_lists(scores.cols(), best_of_the_rest(scores, {}, width));
}

NeuronLists inter_sharing(const Matrix<double>& scores, std::size_t width, std::size_t num_shared) {
  const std::vector<std::int32_t> wanted = wanted_by_most(scores, width, num_shared * width);
  std::vector<std::vector<std::int32_t>> shared;
  for (std::size_t r = 0; r < num_shared; ++r) {
    const auto first = wanted.begin() + static_cast<std::ptrdiff_t>(r * width);
    shared.emplace_back(first, first + static_cast<std::ptrdiff_t>(width));
  }
  return NeuronLists::from_lists(scores.cols(), best_of_the_rest(scores, wanted, width), shared);
}

double total_score(const Matrix<double>& scores, const NeuronLists& lists) {
  double total = 0;
  for (std::size_t e = 0; e < lists.num_experts(); ++e)
    for (const std::int32_t neuron : lists.expert_members(e))
      total += scores.row(e)[static_cast<std::size_t>(neuron)];
  return total;
}

}  // namespace moefy
