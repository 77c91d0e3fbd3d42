#include "site_costs.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

BackendCosts::BackendCosts(Backend& backend, const CostView& q)
    : SiteCosts(backend.on_host(q).data, q.num_rows, q.num_sites, q.stride),
      backend_(&backend),
      q_(q) {
  require(q.num_sites >= 1 && q.stride >= q.num_sites && q.stride % kSiteAlignment == 0,
          "cost rows are padded to a multiple of the site alignment");
}

void BackendCosts::best_sites(std::span<const std::int32_t> prices, bool with_margins,
                              SiteChoice& choice) const {
  backend_->best_sites(q_, prices, with_margins, choice);
}

void BackendCosts::smallest_moves(std::span<const std::int32_t> label, std::span<std::int32_t> key,
                                  std::span<std::int32_t> row) const {
  backend_->smallest_moves(q_, label, key, row);
}

WideCosts::WideCosts(MatrixView<const std::int64_t> costs)
    : SiteCosts(costs.data, costs.rows, costs.cols, costs.cols) {}

void WideCosts::best_sites(std::span<const std::int64_t> prices, bool with_margins,
                           WideSiteChoice& choice) const {
  choice.label.resize(num_rows());
  choice.best.resize(with_margins ? num_rows() : 0);
  choice.margin.resize(with_margins ? num_rows() : 0);
  choice.count.assign(num_sites(), 0);
  for (std::size_t i = 0; i < num_rows(); ++i) {
    const std::int64_t* costs = row(i);
    std::size_t site = 0;
    std::int64_t best = costs[0] + prices[0];
    std::int64_t second = kNoPrice<std::int64_t>;
    for (std::size_t j = 1; j < num_sites(); ++j) {
      const std::int64_t value = costs[j] + prices[j];
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

void WideCosts::smallest_moves(std::span<const std::int32_t> label, std::span<std::int64_t> key,
                               std::span<std::int32_t> rows) const {
  std::fill(key.begin(), key.end(), kNoPrice<std::int64_t>);
  std::fill(rows.begin(), rows.end(), -1);
  for (std::size_t i = 0; i < num_rows(); ++i) {
    const std::int64_t* costs = row(i);
    const auto u = static_cast<std::size_t>(label[i]);
    for (std::size_t v = 0; v < num_sites(); ++v) {
      const std::int64_t move = costs[v] - costs[u];
      if (move < key[u * stride() + v]) {
        key[u * stride() + v] = move;
        rows[u * stride() + v] = static_cast<std::int32_t>(i);
      }
    }
  }
}

}  // namespace moefy
