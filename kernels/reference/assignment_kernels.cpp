#include "reference/assignment_kernels.hpp"

#include <algorithm>
#include <limits>

namespace moefy::reference {

void best_sites(const CostView& q, std::span<const std::int32_t> prices, bool with_margins,
                SiteChoice& choice) {
  choice.label.resize(q.num_rows);
  choice.best.resize(with_margins ? q.num_rows : 0);
  choice.margin.resize(with_margins ? q.num_rows : 0);
  choice.count.assign(q.num_sites, 0);
  for (std::size_t i = 0; i < q.num_rows; ++i) {
    std::size_t site = 0;
    std::int32_t best = q.row(i)[0] + prices[0];
    std::int32_t second = kNoSite;  // a single site leaves every row this margin
    for (std::size_t j = 1; j < q.num_sites; ++j) {
      const std::int32_t value = q.row(i)[j] + prices[j];
      if (value < best) {
        second = best;
        best = value;
        site = j;
      } else {
        second = std::min(second, value);
      }
    }
    choice.label[i] = static_cast<std::int32_t>(site);
    ++choice.count[site];
    if (with_margins) {
      choice.best[i] = best;
      choice.margin[i] = second - best;
    }
  }
}

void smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                    std::span<std::int32_t> key, std::span<std::int32_t> row) {
  std::fill_n(key.begin(), q.num_sites * q.stride, kNoSite);
  std::fill_n(row.begin(), q.num_sites * q.stride, -1);
  for (std::size_t i = 0; i < q.num_rows; ++i) {
    const auto u = static_cast<std::size_t>(label[i]);
    for (std::size_t v = 0; v < q.num_sites; ++v) {
      const std::int32_t move = q.row(i)[v] - q.row(i)[u];
      if (move < key[u * q.stride + v]) {
        key[u * q.stride + v] = move;
        row[u * q.stride + v] = static_cast<std::int32_t>(i);
      }
    }
  }
}

CertificateSums certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                 std::span<const std::int32_t> prices) {
  CertificateSums sums;
  for (std::size_t i = 0; i < q.num_rows; ++i) {
    const auto site = static_cast<std::size_t>(label[i]);
    std::int64_t cheapest = std::numeric_limits<std::int64_t>::max();
    std::int64_t priced = std::numeric_limits<std::int64_t>::max();
    for (std::size_t j = 0; j < q.num_sites; ++j) {
      const std::int64_t cost = q.row(i)[j];
      cheapest = std::min(cheapest, cost);
      priced = std::min(priced, cost + prices[j]);
    }
    const std::int64_t own = q.row(i)[site];
    const std::int64_t violation = own + prices[site] - priced;
    if (violation > sums.worst) {
      sums.worst = violation;
      sums.worst_row = static_cast<std::int64_t>(i);
    }
    sums.cost += own;
    sums.row_minima += priced;
    sums.unconstrained += cheapest;
  }
  return sums;
}

}  // namespace moefy::reference
