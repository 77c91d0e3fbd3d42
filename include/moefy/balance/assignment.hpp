#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/partition/partition.hpp"

namespace moefy {

/// Capacities of the sites, lower <= size <= upper.
class Capacities {
 public:
  /// floor(n/k)..ceil(n/k) each; the optimum decides which are larger.
  static Capacities balanced(std::size_t num_rows, std::size_t num_sites);
  static Capacities exact(std::vector<std::size_t> sizes);
  static Capacities bounded(std::vector<SizeBounds> bounds);

  std::span<const SizeBounds> bounds() const { return bounds_; }
  bool all_equal_bounds() const;  ///< lower == upper everywhere
  /// InputError naming n and the two sums unless Σ lower <= num_rows <= Σ upper.
  void check_feasible(std::size_t num_rows) const;

 private:
  std::vector<SizeBounds> bounds_;
};

/// An exact optimum with its proof.
struct Assignment {
  std::vector<std::int32_t> label;  ///< [num_rows]
  std::vector<std::int64_t> price;  ///< [num_sites]; added to the cost of a site. Normalised:
                                    ///< smallest 0 for equal bounds, slack price 0 with bounds
  __extension__ typedef __int128 Total;
  Total cost = 0;
  Total gap = 0;  ///< primal - dual; 0: optimal
};

struct SolverStatistics {
  std::int64_t surplus = 0;       ///< rows too many before price passes
  std::int64_t surplus_left = 0;  ///< … before the exact finish
  std::int64_t price_passes = 0;
  std::int64_t auction_rounds = 0;
  std::int64_t auction_bids = 0;  ///< each looks at a row of costs
  std::int64_t augmentations = 0;
  std::int64_t rescans = 0;
};

/// Successive shortest paths on the contracted graph of the sites (docs/architecture.md,
/// "Balanced assignment"), for costs that a Backend holds. Keeps its buffers from call to call.
class AssignmentSolver {
 public:
  explicit AssignmentSolver(Backend& backend);
  ~AssignmentSolver();

  /// Optimal labels for q under `capacities`, from warm `prices` [num_sites] (any values with
  /// |p| <= kMaxCost; zeros: cold), which become the optimal, normalised ones. Labels are *an*
  /// optimum; `canonical` makes them the lexicographically smallest one.
  SolverStatistics solve(const CostView& q, const Capacities& capacities, bool canonical,
                         std::span<std::int32_t> prices, std::span<std::int32_t> label);

  /// Nearly balanced labels: at most `max_passes` price passes (Jacobi, damped), no exact finish.
  SolverStatistics relax(const CostView& q, const Capacities& capacities, int max_passes,
                         double damping, std::span<std::int32_t> prices,
                         std::span<std::int32_t> label);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The same optimum for any int64 costs [num_rows, num_sites] up to 2^46 (energies, affinities,
/// overlaps), canonical labels. `start_prices` may be empty. InputError if infeasible or too large.
Assignment balanced_assign(MatrixView<const std::int64_t> costs, const Capacities& capacities,
                           std::span<const std::int64_t> start_prices = {});

struct Certificate {
  Assignment::Total cost = 0;
  Assignment::Total dual = 0;
  Assignment::Total gap = 0;
  std::int64_t worst_violation = 0;  ///< of u_i <= q_ij + p_j, in quanta; 0 if optimal
  std::int64_t worst_row = -1;
  std::int64_t unconstrained = 0;  ///< Σ_i min_j q_ij
  bool sizes_ok = false;
  bool complementary = false;  ///< full where p < 0, at the lower bound where p > 0 …
  bool optimal() const { return gap == 0 && sizes_ok && complementary && worst_violation == 0; }
};

/// Checks an assignment independently of the solver, O(num_rows · num_sites).
Certificate check_certificate(Backend& backend, const CostView& q, const Capacities& capacities,
                              std::span<const std::int32_t> prices,
                              std::span<const std::int32_t> label);

}  // namespace moefy
