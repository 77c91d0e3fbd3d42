#include "moefy/backend/price_passes.hpp"

#include <algorithm>

namespace moefy {
namespace {

template <class Cost>
Cost order_statistic(Cost* first, std::size_t count, std::size_t rank) {
  std::nth_element(first, first + rank, first + count);
  return first[rank];
}

}  // namespace

std::int64_t SiteRoom::imbalance(std::span<const std::int64_t> count) const {
  std::int64_t over = 0;
  std::int64_t under = 0;
  for (std::size_t j = 0; j < lower.size(); ++j) {
    over += std::max<std::int64_t>(count[j] - upper[j], 0);
    under += std::max<std::int64_t>(lower[j] - count[j], 0);
  }
  return std::max(over, under);
}

template <class Cost>
Cost normal_shift(std::span<const Cost> prices, bool equal_bounds, Cost slack_price) {
  const auto [least, largest] = std::ranges::minmax(prices);
  return equal_bounds ? least : std::clamp(slack_price, least, largest);
}

// Rows are sampled where rows are many; ranks are scaled by the step.
std::size_t pass_sample_step(std::size_t num_rows) {
  if (num_rows >= 8192) return 16;
  if (num_rows >= 4096) return 8;
  return num_rows >= 1024 ? 2 : 1;
}

template <class Cost>
PassResult PricePasses<Cost>::run(const HostCosts<Cost>& costs,
                                  const FindBestSites<Cost>& best_sites, const SiteRoom& room,
                                  const PassLimits& limits, Cost largest, std::span<Cost> prices,
                                  BasicSiteChoice<Cost>& choice) {
  const std::span<Cost> used = prices.first(room.lower.size());
  PassResult result;
  bool with_margins = expect_passes_ && limits.max_passes > 0;
  best_sites(prices, with_margins, choice);
  std::int64_t now = room.imbalance(choice.count);
  result.imbalance_before = result.imbalance = now;
  expect_passes_ = now > limits.target;
  best_price_.assign(used.begin(), used.end());
  bool at_best = true;
  while (result.passes < limits.max_passes && now > limits.target) {
    if (!with_margins) best_sites(prices, true, choice);
    step(costs, room, limits.damping, largest, used, choice);
    ++result.passes;
    with_margins = result.passes < limits.max_passes;
    best_sites(prices, with_margins, choice);
    const std::int64_t before = now;
    now = room.imbalance(choice.count);
    at_best = now < result.imbalance;
    if (at_best) {
      result.imbalance = now;
      best_price_.assign(used.begin(), used.end());
    }
    if (before - now < limits.min_gain) break;
  }
  if (!at_best) {
    std::ranges::copy(best_price_, used.begin());
    best_sites(prices, false, choice);
  }
  return result;
}

template <class Cost>
void PricePasses<Cost>::step(const HostCosts<Cost>& costs, const SiteRoom& room, double damping,
                             Cost largest, std::span<Cost> prices,
                             const BasicSiteChoice<Cost>& choice) {
  change_.assign(prices.size(), 0);
  raise(room, damping, largest, choice);
  lower(costs, room, damping, prices, choice);
  for (std::size_t j = 0; j < prices.size(); ++j) prices[j] += change_[j];
  const Cost shift = normal_shift<Cost>(prices, room.equal_bounds, 0);
  // Prices beyond the largest cost repel or attract no more than the largest cost does.
  for (Cost& price : prices) {
    price = std::clamp<Cost>(price - shift, static_cast<Cost>(-largest), largest);
  }
}

template <class Cost>
void PricePasses<Cost>::raise(const SiteRoom& room, double damping, Cost largest,
                              const BasicSiteChoice<Cost>& choice) {
  margins_.resize(room.upper.size());
  for (auto& list : margins_) list.clear();
  for (std::size_t i = 0; i < choice.label.size(); ++i) {
    const auto j = static_cast<std::size_t>(choice.label[i]);
    if (choice.count[j] > room.upper[j]) margins_[j].push_back(choice.margin[i]);
  }
  for (std::size_t j = 0; j < margins_.size(); ++j) {
    if (margins_[j].empty()) continue;
    const auto excess = static_cast<double>(choice.count[j] - room.upper[j]);
    const std::size_t rank =
        std::min(static_cast<std::size_t>(excess * damping), margins_[j].size() - 1);
    change_[j] = std::min(order_statistic(margins_[j].data(), margins_[j].size(), rank), largest);
  }
}

template <class Cost>
void PricePasses<Cost>::lower(const HostCosts<Cost>& costs, const SiteRoom& room, double damping,
                              std::span<const Cost> prices, const BasicSiteChoice<Cost>& choice) {
  std::vector<std::size_t> sites;
  for (std::size_t j = 0; j < prices.size(); ++j) {
    if (choice.count[j] < room.lower[j]) sites.push_back(j);
  }
  const std::size_t step = pass_sample_step(costs.num_rows);
  const std::size_t num_samples = (costs.num_rows + step - 1) / step;
  // Sites in groups, so that a row is read once a group and the buffer stays small.
  constexpr std::size_t kGroup = 64;
  for (std::size_t begin = 0; begin < sites.size(); begin += kGroup) {
    const std::size_t group = std::min(kGroup, sites.size() - begin);
    entry_.resize(num_samples * group);
    for (std::size_t a = 0; a < num_samples; ++a) {
      const Cost* const row = costs.row(a * step);
      const Cost best = choice.best[a * step];
      for (std::size_t x = 0; x < group; ++x) {
        entry_[x * num_samples + a] = row[sites[begin + x]] - best;
      }
    }
    for (std::size_t x = 0; x < group; ++x) {
      const std::size_t j = sites[begin + x];
      const auto missing = static_cast<double>(room.lower[j] - choice.count[j]);
      const std::size_t wanted = static_cast<std::size_t>(missing * damping) / step;
      if (step > 1 && wanted < 2) continue;  // too few samples to tell
      Cost* const values = entry_.data() + x * num_samples;
      std::size_t count = 0;
      for (std::size_t a = 0; a < num_samples; ++a) {
        values[count] = values[a] + prices[j];
        count += choice.label[a * step] == static_cast<std::int32_t>(j) ? 0 : 1;
      }
      if (count == 0) continue;
      const std::size_t rank = std::min(std::max<std::size_t>(wanted, 1) - 1, count - 1);
      change_[j] = -order_statistic(values, count, rank);
    }
  }
}

template class PricePasses<std::int32_t>;
template class PricePasses<std::int64_t>;
template std::int32_t normal_shift(std::span<const std::int32_t>, bool, std::int32_t);
template std::int64_t normal_shift(std::span<const std::int64_t>, bool, std::int64_t);

}  // namespace moefy
