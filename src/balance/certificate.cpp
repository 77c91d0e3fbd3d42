#include <fmt/format.h>

#include <algorithm>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

Certificate check_certificate(Backend& backend, const CostView& q, const Capacities& capacities,
                              std::span<const std::int32_t> prices,
                              std::span<const std::int32_t> label) {
  const auto bounds = capacities.bounds();
  const std::size_t num_sites = bounds.size();
  require(q.num_sites == num_sites, "costs and capacities have the same number of sites");
  require(prices.size() >= num_sites, "one price a site");
  require(label.size() == q.num_rows, "one label a row");
  std::vector<std::size_t> size(num_sites, 0);
  for (std::size_t i = 0; i < label.size(); ++i) {
    if (label[i] < 0 || static_cast<std::size_t>(label[i]) >= num_sites) {
      throw InputError(
          fmt::format("row {} has label {}; valid: 0..{}", i, label[i], num_sites - 1));
    }
    ++size[static_cast<std::size_t>(label[i])];
  }
  for (std::size_t j = 0; j < num_sites; ++j) {
    if (prices[j] > kNoSite || prices[j] < -kNoSite) {
      throw InputError(
          fmt::format("the price of site {} is {}, larger than any cost", j, prices[j]));
    }
  }

  const CertificateSums sums = backend.certificate_sums(q, label, prices);
  Certificate result;
  result.cost = sums.cost;
  result.dual = sums.row_minima;
  result.worst_violation = sums.worst;
  result.worst_row = sums.worst_row;
  result.unconstrained = sums.unconstrained;
  result.sizes_ok = true;
  result.complementary = true;
  for (std::size_t j = 0; j < num_sites; ++j) {
    const auto [lower, upper] = bounds[j];
    const std::int64_t price = prices[j];
    if (size[j] < lower || size[j] > upper) result.sizes_ok = false;
    // A site that repels rows must be full, one that attracts them must be at its least size.
    if (lower < upper && ((price > 0 && size[j] != upper) || (price < 0 && size[j] != lower))) {
      result.complementary = false;
    }
    result.dual -= static_cast<Assignment::Total>(price > 0 ? upper : lower) * price;
  }
  result.gap = result.cost - result.dual;
  return result;
}

}  // namespace moefy
