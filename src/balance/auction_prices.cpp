#include "auction_prices.hpp"

#include <algorithm>
#include <numeric>

namespace moefy {
namespace {

std::int32_t next_epsilon(std::int32_t epsilon) { return std::max(epsilon / 8, 1); }

// Of the rows at sites that take fewer, a share of surplus / rows has to be driven away: where
// margins are spread evenly, by a price as high as this share of twice the mean margin. The epsilon
// is the least one of the scale from kMaxCost down that is not below half of that.
std::int32_t first_epsilon(std::span<const std::int32_t> margins, std::int64_t surplus) {
  const auto rows = static_cast<double>(margins.size());
  const auto sum = std::accumulate(margins.begin(), margins.end(), std::int64_t{0});
  const double rise = static_cast<double>(sum) / rows * (static_cast<double>(surplus) / rows);
  std::int32_t epsilon = kMaxCost;
  while (epsilon > 1 && next_epsilon(epsilon) >= rise) epsilon = next_epsilon(epsilon);
  return epsilon;
}

}  // namespace

bool can_be_auctioned(const SiteRoom& room) {
  return room.equal_bounds && std::ranges::min(room.lower) >= 1;
}

AuctionOutcome auction_prices(const SiteCosts<std::int32_t>& costs,
                              std::span<const std::int64_t> size, std::span<std::int32_t> prices,
                              SiteChoice& choice) {
  const auto rows = static_cast<std::int64_t>(costs.num_rows());
  const auto sites = static_cast<std::int64_t>(costs.num_sites());
  fit_auction_prices(prices.first(costs.num_sites()));
  costs.best_sites(prices, true, choice);
  AuctionOutcome outcome;
  outcome.surplus = SiteRoom{size, size, true}.imbalance(choice.count);
  // Rows at the border of two sites leave a surplus of about a quarter of the sites after any
  // auction.
  if (outcome.surplus <= sites / 2) return outcome;
  AuctionLimits limits;
  limits.epsilon = first_epsilon(choice.margin, outcome.surplus);
  // The last few rows of a phase take most of its rounds, and the exact finish hardly any time.
  limits.enough = sites / 8;
  // Many equal rows bid against each other without end; others need half of this.
  limits.max_bids = 32 * rows;
  while (true) {
    const AuctionResult phase = costs.auction_phase(size, limits, prices);
    outcome.rounds += phase.rounds;
    outcome.bids += phase.bids;
    limits.max_bids -= phase.bids;
    outcome.ended = phase.unassigned <= limits.enough && limits.epsilon == 1;
    if (outcome.ended || phase.unassigned > limits.enough) return outcome;
    limits.epsilon = next_epsilon(limits.epsilon);
  }
}

}  // namespace moefy
