#include "flow_state.hpp"

#include <algorithm>

namespace moefy {

template <class Cost>
void FlowState<Cost>::reset(std::size_t rows, std::size_t row_stride, const Capacities& capacities,
                            std::span<const Cost> start_prices) {
  const auto bounds = capacities.bounds();
  num_rows = rows;
  num_sites = bounds.size();
  stride = row_stride;
  has_slack = !capacities.all_equal_bounds();
  lower.resize(num_sites);
  upper.resize(num_sites);
  granted.assign(num_sites, 0);
  excess.assign(stride + 1, 0);
  price.resize(stride + 1);
  std::fill_n(price.data(), stride, kNoPrice<Cost>);
  price[slack()] = 0;
  for (std::size_t j = 0; j < num_sites; ++j) {
    lower[j] = static_cast<std::int64_t>(bounds[j].lower);
    upper[j] = static_cast<std::int64_t>(std::min(bounds[j].upper, num_rows + 1));
    price[j] = start_prices.empty()
                   ? 0
                   : std::clamp(start_prices[j], static_cast<Cost>(-kLargestCost<Cost>),
                                kLargestCost<Cost>);
  }
}

template <class Cost>
void FlowState<Cost>::balance(std::span<const std::int64_t> count) {
  std::int64_t total = 0;
  for (std::size_t j = 0; j < num_sites; ++j) {
    if (lower[j] == upper[j] || price[j] < 0) {
      granted[j] = lower[j];
    } else {
      granted[j] = price[j] > 0 ? upper[j] : std::clamp(count[j], lower[j], upper[j]);
    }
    excess[j] = count[j] - granted[j];
    total += granted[j];
  }
  excess[slack()] = total - static_cast<std::int64_t>(num_rows);
}

template <class Cost>
std::int64_t FlowState<Cost>::surplus() const {
  std::int64_t sum = 0;
  for (const std::int64_t e : excess) sum += std::max<std::int64_t>(e, 0);
  return sum;
}

template <class Cost>
void FlowState<Cost>::normalise_prices() {
  Cost* const last = price.data() + num_sites;
  const Cost least = *std::min_element(price.data(), last);
  const Cost largest = *std::max_element(price.data(), last);
  Cost shift = least;
  if (has_slack) shift = std::clamp(price[slack()], least, largest);
  for (Cost* p = price.data(); p != last; ++p) *p -= shift;
  price[slack()] = 0;
}

template <class Cost>
std::int64_t imbalance(const FlowState<Cost>& state, std::span<const std::int64_t> count) {
  std::int64_t over = 0;
  std::int64_t under = 0;
  for (std::size_t j = 0; j < state.num_sites; ++j) {
    over += std::max<std::int64_t>(count[j] - state.upper[j], 0);
    under += std::max<std::int64_t>(state.lower[j] - count[j], 0);
  }
  return std::max(over, under);
}

template struct FlowState<std::int32_t>;
template struct FlowState<std::int64_t>;
template std::int64_t imbalance(const FlowState<std::int32_t>&, std::span<const std::int64_t>);
template std::int64_t imbalance(const FlowState<std::int64_t>&, std::span<const std::int64_t>);

}  // namespace moefy
