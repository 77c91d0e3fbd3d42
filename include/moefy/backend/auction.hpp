#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "moefy/backend/host_costs.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// How one phase of the auction bids, and when it ends.
struct AuctionLimits {
  std::int32_t epsilon = 1;         ///< by how much a bid exceeds what it has to be: 1 .. kMaxCost
  std::int64_t enough = 0;          ///< ends when at most so many rows are unassigned
  std::int64_t max_rounds = 10000;  ///< … or after so many rounds
  /// … or after so many bids.
  std::int64_t max_bids = std::numeric_limits<std::int64_t>::max();
};

struct AuctionResult {
  std::int64_t rounds = 0;
  std::int64_t bids = 0;        ///< of all rounds; each looks at a row of costs
  std::int64_t unassigned = 0;  ///< rows that are left
};

/// Brings prices to 0 .. kMaxCost: the smallest becomes 0, and one that is higher by more than any
/// cost becomes kMaxCost, with which its site repels rows no less.
void fit_auction_prices(std::span<std::int32_t> prices);

/// One phase of Bertsekas' auction, for rows that bid for sites with several places each; all bids
/// of a round are made at once (Jacobi). At the start no row has a site. In a round every row
/// without one bids for its best site under the prices (the lowest site on ties): the price at
/// which its second-best site would be as good, plus epsilon. A site keeps the highest of its old
/// and new bids, one for each place (of equal ones those of the lower rows), and leaves the other
/// rows without a site; once it is full, its price is the lowest bid that it keeps. What a round
/// ends with does not depend on the order of its bids. At any time a row has its site within
/// epsilon of its best one.
///
/// Range, with prices of 0 .. C at the start, costs of 0 .. C and epsilon <= C = kMaxCost: as long
/// as a row has no site, some site is not full and has its first price. A row that may choose such
/// a site as its second one bids at most 2C + epsilon. The others bid for the last site that is not
/// full, at most 3C + 2 epsilon, and the phase ends with it. So costs plus prices stay within 4C =
/// kNoSite and bids within 5C, which fits int32.
class AuctionPhase {
 public:
  /// size [num_sites]: at least 1 each, adding up to the rows. prices [stride]: in, any; out,
  /// fitted by fit_auction_prices; entries beyond the sites stay as they are. The costs are those
  /// of a CostView.
  AuctionResult run(const HostCosts<std::int32_t>& costs, ThreadPool& threads,
                    std::span<const std::int64_t> size, const AuctionLimits& limits,
                    std::span<std::int32_t> prices);

 private:
  struct Bid {
    std::int32_t value;
    std::int32_t row;
    /// Whether a site prefers it to the other one.
    bool beats(const Bid& other) const {
      return value > other.value || (value == other.value && row < other.row);
    }
  };

  void find_bids(const HostCosts<std::int32_t>& costs, ThreadPool& threads, std::int32_t epsilon);
  void settle_bids(std::span<const std::int64_t> size);

  std::vector<std::int32_t> price_;       // [stride], padding kNoSite
  std::vector<std::int32_t> unassigned_;  // rows
  std::vector<std::int32_t> site_;        // that each of them bids for
  std::vector<std::int32_t> bid_;         // and what
  std::vector<std::int32_t> evicted_;     // rows
  std::vector<std::vector<Bid>> kept_;    // by each site: a heap, the lowest one first
};

}  // namespace moefy
