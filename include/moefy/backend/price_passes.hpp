#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "moefy/backend/host_costs.hpp"

namespace moefy {

/// Labels and their counts, in the order of the selected rows.
template <class Cost>
struct BasicSiteChoice {
  std::vector<std::int32_t> label;  ///< argmin_j q + p, lowest j on ties
  std::vector<Cost> best;           ///< that value; filled only with margins
  std::vector<Cost> margin;         ///< second value - best; filled only with margins
  std::vector<std::int64_t> count;  ///< [num_sites] rows per label
};

/// Sizes that sites may have.
struct SiteRoom {
  std::span<const std::int64_t> lower, upper;  ///< [num_sites]
  bool equal_bounds = true;                    ///< lower == upper everywhere

  /// How far counts are outside: the larger of what is too much and what is missing.
  std::int64_t imbalance(std::span<const std::int64_t> count) const;
};

/// When price passes end, and how far each of them goes.
struct PassLimits {
  int max_passes = 12;
  std::int64_t target = 0;    ///< imbalance that is good enough
  std::int64_t min_gain = 0;  ///< a pass that lowers the imbalance by less is the last one
  double damping = 0.5;       ///< share of an imbalance that a pass tries to move
};

struct PassResult {
  std::int64_t imbalance_before = 0;
  std::int64_t imbalance = 0;
  std::int64_t passes = 0;
};

/// What to subtract from prices to bring them to their normal form, which changes neither labels
/// nor gap: smallest 0 for equal bounds, `slack_price` 0 otherwise (then, where all prices have one
/// sign, towards 0 until one is 0).
template <class Cost>
Cost normal_shift(std::span<const Cost> prices, bool equal_bounds, Cost slack_price);

/// A pass looks at every `pass_sample_step(num_rows)`-th row for what might come to a site.
std::size_t pass_sample_step(std::size_t num_rows);

/// Best sites of every row under prices [stride]: see Backend::best_sites.
template <class Cost>
using FindBestSites = std::function<void(std::span<const Cost> prices, bool with_margins,
                                         BasicSiteChoice<Cost>& choice)>;

/// Dual ascent by order statistics: sites with too many rows raise their price by the margin at
/// which a share of what is too much leaves; sites with too few lower it until as many come. All
/// sites move at once, from the same state (Jacobi). Order statistics are exact, so results are
/// too, and a backend that counts otherwise finds the same.
template <class Cost>
class PricePasses {
 public:
  /// `largest`: of any cost, and of any price in between. prices [stride]: in, the start; out,
  /// those with the least imbalance (the first such), whose labels and counts `choice` gets; its
  /// best and margin are undefined. Entries beyond the sites stay as they are.
  PassResult run(const HostCosts<Cost>& costs, const FindBestSites<Cost>& best_sites,
                 const SiteRoom& room, const PassLimits& limits, Cost largest,
                 std::span<Cost> prices, BasicSiteChoice<Cost>& choice);

 private:
  void step(const HostCosts<Cost>& costs, const SiteRoom& room, double damping, Cost largest,
            std::span<Cost> prices, const BasicSiteChoice<Cost>& choice);
  void raise(const SiteRoom& room, double damping, Cost largest,
             const BasicSiteChoice<Cost>& choice);
  void lower(const HostCosts<Cost>& costs, const SiteRoom& room, double damping,
             std::span<const Cost> prices, const BasicSiteChoice<Cost>& choice);

  bool expect_passes_ = false;  // whether the last call needed them; decides about work only
  std::vector<Cost> change_;    // [num_sites] of the prices
  std::vector<std::vector<Cost>> margins_;
  std::vector<Cost> entry_;
  std::vector<Cost> best_price_;
};

}  // namespace moefy
