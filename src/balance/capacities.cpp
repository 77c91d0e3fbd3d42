#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

Capacities Capacities::balanced(std::size_t num_rows, std::size_t num_sites) {
  require(num_sites >= 1, "an assignment has at least one site");
  const std::size_t lower = num_rows / num_sites;
  const std::size_t upper = lower + (num_rows % num_sites == 0 ? 0 : 1);
  return bounded(std::vector<SizeBounds>(num_sites, {lower, upper}));
}

Capacities Capacities::exact(std::vector<std::size_t> sizes) {
  std::vector<SizeBounds> bounds;
  bounds.reserve(sizes.size());
  for (const std::size_t size : sizes) bounds.push_back({size, size});
  return bounded(std::move(bounds));
}

Capacities Capacities::bounded(std::vector<SizeBounds> bounds) {
  require(!bounds.empty(), "an assignment has at least one site");
  Capacities capacities;
  capacities.bounds_ = std::move(bounds);
  return capacities;
}

bool Capacities::all_equal_bounds() const {
  return std::ranges::all_of(bounds_, [](const SizeBounds& b) { return b.lower == b.upper; });
}

void Capacities::check_feasible(std::size_t num_rows) const {
  // Sums saturate above num_rows, so that bounds such as "any size" cannot overflow them.
  std::size_t lower = 0;
  std::size_t upper = 0;
  for (std::size_t j = 0; j < bounds_.size(); ++j) {
    if (bounds_[j].lower > bounds_[j].upper) {
      throw InputError(fmt::format("site {} has bounds {}..{}: the lower one must not be larger", j,
                                   bounds_[j].lower, bounds_[j].upper));
    }
    lower += std::min(bounds_[j].lower, num_rows + 1);
    upper += std::min(bounds_[j].upper, num_rows + 1);
  }
  if (lower > num_rows || upper < num_rows) {
    throw InputError(fmt::format(
        "{} rows cannot be assigned to {} sites: the least sizes add up to {}, the largest to {}; "
        "choose sizes with least sum <= rows <= largest sum",
        num_rows, bounds_.size(), lower, upper));
  }
}

}  // namespace moefy
