#pragma once

#include <cstdint>
#include <span>

#include "augmenting_paths.hpp"
#include "candidate_arcs.hpp"
#include "dense_arcs.hpp"
#include "moefy/balance/assignment.hpp"

namespace moefy {

/// How the solver works; no setting changes labels that are asked for as canonical.
struct SolverTuning {
  std::size_t list_length = 16;         ///< rows a short list of moves holds
  std::size_t max_dense_sites = 512;    ///< more sites: a few candidates a row instead of all arcs
  std::size_t num_candidates = 32;      ///< cheapest sites a row starts with
  std::size_t min_auction_sites = 513;  ///< fewer sites: price passes without an auction
};

/// The exact balanced assignment for one type of costs: price passes or an auction, then augmenting
/// paths, then the tie rule. Keeps its buffers from call to call.
template <class Cost>
class ExactSolver {
 public:
  explicit ExactSolver(const SolverTuning& tuning = {})
      : tuning_(tuning), dense_(tuning.list_length), candidates_(tuning.num_candidates) {}

  /// See AssignmentSolver. Capacities must have costs.num_sites() sites.
  SolverStatistics solve(const SiteCosts<Cost>& costs, const Capacities& capacities, bool canonical,
                         std::span<Cost> prices, std::span<std::int32_t> label);
  SolverStatistics relax(const SiteCosts<Cost>& costs, const Capacities& capacities, int max_passes,
                         double damping, std::span<Cost> prices, std::span<std::int32_t> label);

 private:
  void start(const SiteCosts<Cost>& costs, const Capacities& capacities, std::span<Cost> prices,
             std::span<std::int32_t> label);
  SolverStatistics find_prices(const SiteCosts<Cost>& costs);
  SolverStatistics run_passes(const SiteCosts<Cost>& costs, const PassLimits& limits);
  void finish_dense(const SiteCosts<Cost>& costs, SolverStatistics& statistics);
  void finish_on_candidates(const SiteCosts<Cost>& costs, SolverStatistics& statistics);
  void hand_over(std::span<Cost> prices, std::span<std::int32_t> label);

  SolverTuning tuning_;
  FlowState<Cost> state_;
  Choice<Cost> choice_;
  DenseArcs<Cost> dense_;
  CandidateArcs<Cost> candidates_;
  AugmentingPaths<Cost> paths_;
};

}  // namespace moefy
