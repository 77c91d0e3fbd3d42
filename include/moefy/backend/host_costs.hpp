#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moefy {

/// A cost matrix [num_rows, num_sites] in host memory, row length `stride`.
template <class Cost>
struct HostCosts {
  const Cost* data = nullptr;
  std::size_t num_rows = 0;
  std::size_t num_sites = 0;
  std::size_t stride = 0;
  const Cost* row(std::size_t i) const { return data + i * stride; }
};

/// Σ_i cost(i, label_i), for int32 costs.
std::int64_t total_cost(const HostCosts<std::int32_t>& costs, std::span<const std::int32_t> label);

/// Rows, ascending, for which a site other than their own costs the same, prices included.
template <class Cost>
std::vector<std::int32_t> tied_rows(const HostCosts<Cost>& costs,
                                    std::span<const std::int32_t> label,
                                    std::span<const Cost> prices);

}  // namespace moefy
