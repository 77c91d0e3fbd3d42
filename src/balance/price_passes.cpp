#include "price_passes.hpp"

#include <algorithm>

namespace moefy {
namespace {

// Rows are sampled where rows are many; ranks are scaled by the step.
std::size_t sample_step(std::size_t num_rows) {
  if (num_rows >= 8192) return 16;
  if (num_rows >= 4096) return 8;
  return num_rows >= 1024 ? 2 : 1;
}

template <class Cost>
Cost order_statistic(Cost* first, std::size_t count, std::size_t rank) {
  std::nth_element(first, first + rank, first + count);
  return first[rank];
}

}  // namespace

template <class Cost>
PassResult PricePasses<Cost>::run(const SiteCosts<Cost>& costs, const PassLimits& limits,
                                  FlowState<Cost>& state, Choice<Cost>& choice) {
  PassResult result;
  bool with_margins = expect_passes_ && limits.max_passes > 0;
  costs.best_sites(state.site_prices(), with_margins, choice);
  std::int64_t now = imbalance<Cost>(state, choice.count);
  result.imbalance_before = result.imbalance = now;
  expect_passes_ = now > limits.target;
  best_price_.assign(state.price.data(), state.price.data() + state.num_sites);
  bool at_best = true;
  while (result.passes < limits.max_passes && now > limits.target) {
    if (!with_margins) costs.best_sites(state.site_prices(), true, choice);
    step(costs, limits.damping, state, choice);
    ++result.passes;
    with_margins = result.passes < limits.max_passes;
    costs.best_sites(state.site_prices(), with_margins, choice);
    const std::int64_t before = now;
    now = imbalance<Cost>(state, choice.count);
    at_best = now < result.imbalance;
    if (at_best) {
      result.imbalance = now;
      best_price_.assign(state.price.data(), state.price.data() + state.num_sites);
    }
    if (before - now < limits.min_gain) break;
  }
  if (!at_best) {
    std::copy(best_price_.begin(), best_price_.end(), state.price.data());
    costs.best_sites(state.site_prices(), false, choice);
  }
  return result;
}

template <class Cost>
void PricePasses<Cost>::step(const SiteCosts<Cost>& costs, double damping, FlowState<Cost>& state,
                             const Choice<Cost>& choice) {
  change_.assign(state.num_sites, 0);
  raise(damping, state, choice);
  lower(costs, damping, state, choice);
  for (std::size_t j = 0; j < state.num_sites; ++j) state.price[j] += change_[j];
  state.normalise_prices();
  // Prices beyond the largest cost repel or attract no more than the largest cost does.
  for (std::size_t j = 0; j < state.num_sites; ++j) {
    state.price[j] =
        std::clamp(state.price[j], static_cast<Cost>(-kLargestCost<Cost>), kLargestCost<Cost>);
  }
}

template <class Cost>
void PricePasses<Cost>::raise(double damping, const FlowState<Cost>& state,
                              const Choice<Cost>& choice) {
  margins_.resize(state.num_sites);
  for (auto& list : margins_) list.clear();
  for (std::size_t i = 0; i < choice.label.size(); ++i) {
    const auto j = static_cast<std::size_t>(choice.label[i]);
    if (choice.count[j] > state.upper[j]) margins_[j].push_back(choice.margin[i]);
  }
  for (std::size_t j = 0; j < state.num_sites; ++j) {
    if (margins_[j].empty()) continue;
    const auto excess = static_cast<double>(choice.count[j] - state.upper[j]);
    const std::size_t rank =
        std::min(static_cast<std::size_t>(excess * damping), margins_[j].size() - 1);
    change_[j] =
        std::min(order_statistic(margins_[j].data(), margins_[j].size(), rank), kLargestCost<Cost>);
  }
}

template <class Cost>
void PricePasses<Cost>::lower(const SiteCosts<Cost>& costs, double damping,
                              const FlowState<Cost>& state, const Choice<Cost>& choice) {
  std::vector<std::size_t> sites;
  for (std::size_t j = 0; j < state.num_sites; ++j) {
    if (choice.count[j] < state.lower[j]) sites.push_back(j);
  }
  const std::size_t step = sample_step(state.num_rows);
  const std::size_t num_samples = (state.num_rows + step - 1) / step;
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
      const auto missing = static_cast<double>(state.lower[j] - choice.count[j]);
      const std::size_t wanted = static_cast<std::size_t>(missing * damping) / step;
      if (step > 1 && wanted < 2) continue;  // too few samples to tell
      Cost* const values = entry_.data() + x * num_samples;
      std::size_t count = 0;
      for (std::size_t a = 0; a < num_samples; ++a) {
        values[count] = values[a] + state.price[j];
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

}  // namespace moefy
