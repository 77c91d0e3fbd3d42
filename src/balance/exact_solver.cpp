#include "exact_solver.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "auction_prices.hpp"
#include "moefy/core/error.hpp"
#include "tie_rule.hpp"

namespace moefy {

template <class Cost>
SolverStatistics ExactSolver<Cost>::solve(const SiteCosts<Cost>& costs,
                                          const Capacities& capacities, bool canonical,
                                          std::span<Cost> prices, std::span<std::int32_t> label) {
  start(costs, capacities, prices, label);
  SolverStatistics statistics;
  if (costs.num_rows() > 0) {
    statistics = find_prices(costs);
    if (state_.surplus() > 0) {
      if (costs.num_sites() > tuning_.max_dense_sites) {
        finish_on_candidates(costs, statistics);
      } else {
        finish_dense(costs, statistics);
      }
    }
  }
  state_.normalise_prices();
  if (canonical && costs.num_rows() > 0) make_canonical(costs, state_);
  hand_over(prices, label);
  return statistics;
}

template <class Cost>
SolverStatistics ExactSolver<Cost>::relax(const SiteCosts<Cost>& costs,
                                          const Capacities& capacities, int max_passes,
                                          double damping, std::span<Cost> prices,
                                          std::span<std::int32_t> label) {
  start(costs, capacities, prices, label);
  SolverStatistics statistics;
  if (costs.num_rows() > 0) {
    PassLimits limits;
    limits.max_passes = max_passes;
    limits.damping = damping;
    limits.target = std::max<std::int64_t>(8, static_cast<std::int64_t>(costs.num_rows()) / 64);
    limits.min_gain = std::numeric_limits<std::int64_t>::min() / 2;
    statistics = run_passes(costs, limits);
  }
  state_.normalise_prices();
  hand_over(prices, label);
  return statistics;
}

template <class Cost>
void ExactSolver<Cost>::start(const SiteCosts<Cost>& costs, const Capacities& capacities,
                              std::span<Cost> prices, std::span<std::int32_t> label) {
  require(capacities.bounds().size() == costs.num_sites(), "capacities of as many sites as costs");
  require(prices.size() == costs.num_sites(), "one price a site");
  require(label.size() == costs.num_rows(), "one label a row");
  require(costs.num_rows() < std::numeric_limits<std::int32_t>::max(), "row ids fit int32");
  capacities.check_feasible(costs.num_rows());
  state_.reset(costs.num_rows(), costs.stride(), capacities, prices);
}

template <class Cost>
SolverStatistics ExactSolver<Cost>::find_prices(const SiteCosts<Cost>& costs) {
  // A pass costs about as much as n / 2k augmentations.
  const auto rows = static_cast<std::int64_t>(costs.num_rows());
  const auto sites = static_cast<std::int64_t>(costs.num_sites());
  PassLimits limits;
  limits.target = std::max<std::int64_t>(16, rows / sites);
  limits.min_gain = rows / (2 * sites);
  if constexpr (std::is_same_v<Cost, std::int32_t>) {
    if (costs.num_sites() >= tuning_.min_auction_sites && can_be_auctioned(state_.room())) {
      const AuctionOutcome auction =
          auction_prices(costs, state_.lower, state_.site_prices(), choice_);
      if (auction.ended) limits.max_passes = 0;  // passes would not make them better
      SolverStatistics statistics = run_passes(costs, limits);
      statistics.surplus = auction.surplus;
      statistics.auction_rounds = auction.rounds;
      statistics.auction_bids = auction.bids;
      return statistics;
    }
  }
  return run_passes(costs, limits);
}

template <class Cost>
SolverStatistics ExactSolver<Cost>::run_passes(const SiteCosts<Cost>& costs,
                                               const PassLimits& limits) {
  // Only differences matter with equal bounds; the shift keeps far-off warm prices in range.
  if (!state_.has_slack) state_.normalise_prices();
  const PassResult passes =
      costs.price_passes(state_.room(), limits, state_.site_prices(), choice_);
  state_.label = choice_.label;
  state_.balance(choice_.count);
  SolverStatistics statistics;
  statistics.surplus = passes.imbalance_before;
  statistics.surplus_left = state_.surplus();
  statistics.price_passes = passes.passes;
  return statistics;
}

template <class Cost>
void ExactSolver<Cost>::finish_dense(const SiteCosts<Cost>& costs, SolverStatistics& statistics) {
  dense_.build(costs, state_.label);
  require(paths_.run(dense_, state_, costs.instruction_set()), "every deficit can be reached");
  statistics.augmentations += paths_.augmentations();
  statistics.rescans += dense_.rescans();
}

template <class Cost>
void ExactSolver<Cost>::finish_on_candidates(const SiteCosts<Cost>& costs,
                                             SolverStatistics& statistics) {
  candidates_.build(costs, state_);
  do {
    while (!paths_.run(candidates_, state_, costs.instruction_set())) {
      statistics.augmentations += paths_.augmentations();
      require(candidates_.widen(paths_.reached(), state_), "every deficit can be reached");
    }
    statistics.augmentations += paths_.augmentations();
    ++statistics.rescans;
  } while (candidates_.add_violated(state_));
}

template <class Cost>
void ExactSolver<Cost>::hand_over(std::span<Cost> prices, std::span<std::int32_t> label) {
  std::copy_n(state_.price.data(), prices.size(), prices.begin());
  std::copy_n(choice_.label.begin(), label.size(), label.begin());
}

template class ExactSolver<std::int32_t>;
template class ExactSolver<std::int64_t>;

}  // namespace moefy
