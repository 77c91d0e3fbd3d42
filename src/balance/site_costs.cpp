#include "site_costs.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

BackendCosts::BackendCosts(Backend& backend, const CostView& q)
    : SiteCosts(q.num_rows, q.num_sites, q.stride), backend_(&backend), q_(q) {
  require(q.num_sites >= 1 && q.stride >= q.num_sites && q.stride % kSiteAlignment == 0,
          "cost rows are padded to a multiple of the site alignment");
}

PassResult BackendCosts::price_passes(const SiteRoom& room, const PassLimits& limits,
                                      std::span<std::int32_t> prices, SiteChoice& choice) const {
  return backend_->price_passes(q_, room, limits, prices, choice);
}

AuctionResult BackendCosts::auction_phase(std::span<const std::int64_t> size,
                                          const AuctionLimits& limits,
                                          std::span<std::int32_t> prices) const {
  return backend_->auction_phase(q_, size, limits, prices);
}

void BackendCosts::best_sites(std::span<const std::int32_t> prices, bool with_margins,
                              SiteChoice& choice) const {
  backend_->best_sites(q_, prices, with_margins, choice);
}

std::vector<std::int32_t> BackendCosts::tied_rows(std::span<const std::int32_t> label,
                                                  std::span<const std::int32_t> prices) const {
  return backend_->tied_rows(q_, label, prices);
}

void BackendCosts::smallest_moves(std::span<const std::int32_t> label, std::span<std::int32_t> key,
                                  std::span<std::int32_t> row) const {
  backend_->smallest_moves(q_, label, key, row);
}

bool BackendCosts::list_moves(std::span<const std::int32_t> label, std::size_t length,
                              std::vector<MoveEntry<std::int32_t>>& list) const {
  return backend_->list_moves(q_, label, length, list);
}

WideCosts::WideCosts(MatrixView<const std::int64_t> costs)
    : SiteCosts(costs.rows, costs.cols, costs.cols), costs_(costs) {}

PassResult WideCosts::price_passes(const SiteRoom& room, const PassLimits& limits,
                                   std::span<std::int64_t> prices,
                                   Choice<std::int64_t>& choice) const {
  const auto best = [&](std::span<const std::int64_t> now, bool with_margins,
                        Choice<std::int64_t>& out) { best_sites(now, with_margins, out); };
  return passes_.run(host_costs(), best, room, limits, kLargestCost<std::int64_t>, prices, choice);
}

void WideCosts::best_sites(std::span<const std::int64_t> prices, bool with_margins,
                           Choice<std::int64_t>& choice) const {
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

std::vector<std::int32_t> WideCosts::tied_rows(std::span<const std::int32_t> label,
                                               std::span<const std::int64_t> prices) const {
  return moefy::tied_rows(host_costs(), label, prices);
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
