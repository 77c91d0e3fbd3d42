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
  const std::span<Cost> prices(price.data(), num_sites);
  const Cost shift = normal_shift<Cost>(prices, !has_slack, price[slack()]);
  for (Cost& p : prices) p -= shift;
  price[slack()] = 0;
}

template struct FlowState<std::int32_t>;
template struct FlowState<std::int64_t>;

}  // namespace moefy
