#pragma once

#include <cstdint>
#include <vector>

#include "site_arcs.hpp"

namespace moefy {

/// Few arcs for many sites: every row may only move to its cheapest sites at the prices of the
/// start. What is optimal on these arcs becomes optimal on all by adding the arcs that the prices
/// violate, and solving again, until there is none.
template <class Cost>
class CandidateArcs final : public SiteArcs<Cost> {
 public:
  explicit CandidateArcs(std::size_t num_candidates) : num_candidates_(num_candidates) {}

  void build(const SiteCosts<Cost>& costs, const FlowState<Cost>& state);
  /// Doubles the candidates of the rows at `sites`; a row for which one is cheaper moves there,
  /// whatever that does to the sizes. False if they have all sites already.
  bool widen(std::span<const std::int32_t> sites, FlowState<Cost>& state);
  /// Checks all arcs against the prices: adds the violated ones and moves their rows to the
  /// cheapest site, too. False if there is none, so that the labels are optimal.
  bool add_violated(FlowState<Cost>& state);

  bool is_empty(std::size_t u) const override { return members_.of(u).empty(); }
  void relax(std::size_t u, const FlowState<Cost>& state, PathTree<Cost>& tree) override;
  std::int32_t tight_row(std::size_t u, std::size_t v, const FlowState<Cost>& state) override;
  std::vector<std::int32_t> tight_rows(std::size_t u, std::size_t v, std::size_t limit,
                                       const FlowState<Cost>& state) override;
  void move(std::int32_t row, std::size_t v, FlowState<Cost>& state) override;

 private:
  struct Candidate {
    Cost cost;
    std::int32_t site;
  };

  void choose(std::size_t row, std::size_t count, const FlowState<Cost>& state);
  void relabel(std::size_t row, std::int32_t site, FlowState<Cost>& state);

  std::size_t num_candidates_;
  const SiteCosts<Cost>* costs_ = nullptr;
  SiteMembers members_;
  std::vector<std::vector<Candidate>> candidates_;  // of a row
  std::vector<std::int32_t> tree_row_;              // [num_sites] whose arc led here
  std::vector<Candidate> sorted_;
  Choice<Cost> cheapest_;
};

}  // namespace moefy
