#pragma once

#include <cstdint>
#include <span>

#include "site_costs.hpp"

namespace moefy {

/// What an auction began with and did.
struct AuctionOutcome {
  std::int64_t surplus = 0;  ///< rows too many at the start prices
  std::int64_t rounds = 0;
  std::int64_t bids = 0;
  bool ended = false;  ///< all phases came to their end
};

/// Whether every site takes a fixed number of rows, at least one.
bool can_be_auctioned(const SiteRoom& room);

/// Prices near the optimal ones for sites that take size[j] rows each, by an auction with
/// epsilon-scaling (Bertsekas): phases with ever smaller epsilon, each from the prices of the one
/// before. The first epsilon is as large as prices will probably have to rise, so that start prices
/// that are nearly right are not thrown away. prices [stride]: in, the start; out, those of the
/// last phase; where there is little to win the start, fitted. `choice` is scratch.
AuctionOutcome auction_prices(const SiteCosts<std::int32_t>& costs,
                              std::span<const std::int64_t> size, std::span<std::int32_t> prices,
                              SiteChoice& choice);

}  // namespace moefy
