#include "moefy/backend/host_costs.hpp"

namespace moefy {

std::int64_t total_cost(const HostCosts<std::int32_t>& costs, std::span<const std::int32_t> label) {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < label.size(); ++i) {
    total += costs.row(i)[static_cast<std::size_t>(label[i])];
  }
  return total;
}

template <class Cost>
std::vector<std::int32_t> tied_rows(const HostCosts<Cost>& costs,
                                    std::span<const std::int32_t> label,
                                    std::span<const Cost> prices) {
  std::vector<std::int32_t> rows;
  for (std::size_t i = 0; i < costs.num_rows; ++i) {
    const Cost* const row = costs.row(i);
    const auto site = static_cast<std::size_t>(label[i]);
    const Cost own = row[site] + prices[site];
    std::int32_t num_tied = 0;
    for (std::size_t j = 0; j < costs.num_sites; ++j) num_tied += row[j] + prices[j] == own ? 1 : 0;
    if (num_tied > 1) rows.push_back(static_cast<std::int32_t>(i));
  }
  return rows;
}

template std::vector<std::int32_t> tied_rows(const HostCosts<std::int32_t>&,
                                             std::span<const std::int32_t>,
                                             std::span<const std::int32_t>);
template std::vector<std::int32_t> tied_rows(const HostCosts<std::int64_t>&,
                                             std::span<const std::int32_t>,
                                             std::span<const std::int64_t>);

}  // namespace moefy
