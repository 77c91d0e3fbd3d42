#include "candidate_arcs.hpp"

#include <algorithm>

namespace moefy {

template <class Cost>
void CandidateArcs<Cost>::build(const SiteCosts<Cost>& costs, const FlowState<Cost>& state) {
  costs_ = &costs;
  members_.assign(state.label, state.num_sites);
  tree_row_.assign(state.num_sites, -1);
  candidates_.resize(costs.num_rows());
  for (std::size_t i = 0; i < costs.num_rows(); ++i) choose(i, num_candidates_, state);
}

// The `count` cheapest sites at the current prices (lowest site on ties); the label is one of them.
template <class Cost>
void CandidateArcs<Cost>::choose(std::size_t row, std::size_t count, const FlowState<Cost>& state) {
  const Cost* const costs = costs_->row(row);
  const std::size_t num_sites = state.num_sites;
  sorted_.resize(num_sites);
  for (std::size_t j = 0; j < num_sites; ++j) {
    sorted_[j] = {static_cast<Cost>(costs[j] + state.price[j]), static_cast<std::int32_t>(j)};
  }
  if (count < num_sites) {
    std::nth_element(sorted_.begin(), sorted_.begin() + static_cast<std::ptrdiff_t>(count - 1),
                     sorted_.end(), [](const Candidate& a, const Candidate& b) {
                       return a.cost < b.cost || (a.cost == b.cost && a.site < b.site);
                     });
    sorted_.resize(count);
  }
  for (Candidate& candidate : sorted_) {
    candidate.cost = costs[static_cast<std::size_t>(candidate.site)];
  }
  const auto by_site = [](const Candidate& a, const Candidate& b) { return a.site < b.site; };
  std::sort(sorted_.begin(), sorted_.end(), by_site);
  candidates_[row].assign(sorted_.begin(), sorted_.end());
}

template <class Cost>
bool CandidateArcs<Cost>::widen(std::span<const std::int32_t> sites, FlowState<Cost>& state) {
  bool grown = false;
  for (const std::int32_t node : sites) {
    const auto site = static_cast<std::size_t>(node);
    if (site >= state.num_sites) continue;                     // the slack node
    const std::vector<std::int32_t> rows = members_.of(site);  // a copy: rows may move
    for (const std::int32_t row : rows) {
      const auto i = static_cast<std::size_t>(row);
      if (candidates_[i].size() >= state.num_sites) continue;
      choose(i, 2 * candidates_[i].size(), state);
      grown = true;
      Cost least = costs_->row(i)[site] + state.price[site];
      std::int32_t cheapest = node;
      for (const Candidate& candidate : candidates_[i]) {
        const Cost value = candidate.cost + state.price[static_cast<std::size_t>(candidate.site)];
        if (value >= least) continue;
        least = value;
        cheapest = candidate.site;
      }
      if (cheapest != node) relabel(i, cheapest, state);
    }
  }
  return grown;
}

template <class Cost>
bool CandidateArcs<Cost>::add_violated(FlowState<Cost>& state) {
  costs_->best_sites(state.site_prices(), true, cheapest_);
  bool violated = false;
  for (std::size_t i = 0; i < costs_->num_rows(); ++i) {
    const Cost* const costs = costs_->row(i);
    const auto site = static_cast<std::size_t>(state.label[i]);
    const Cost own = costs[site] + state.price[site];
    if (own == cheapest_.best[i]) continue;
    violated = true;
    for (std::size_t j = 0; j < state.num_sites; ++j) {
      if (costs[j] + state.price[j] < own) {
        candidates_[i].push_back({costs[j], static_cast<std::int32_t>(j)});
      }
    }
    relabel(i, cheapest_.label[i], state);
  }
  return violated;
}

template <class Cost>
void CandidateArcs<Cost>::relabel(std::size_t row, std::int32_t site, FlowState<Cost>& state) {
  --state.excess[static_cast<std::size_t>(state.label[row])];
  ++state.excess[static_cast<std::size_t>(site)];
  move(static_cast<std::int32_t>(row), static_cast<std::size_t>(site), state);
}

template <class Cost>
void CandidateArcs<Cost>::relax(std::size_t u, const FlowState<Cost>& state, PathTree<Cost>& tree) {
  const Cost base = tree.distance[u] - state.price[u];
  for (const std::int32_t row : members_.of(u)) {
    const auto i = static_cast<std::size_t>(row);
    const Cost own = base - costs_->row(i)[u];
    for (const Candidate& candidate : candidates_[i]) {
      const auto v = static_cast<std::size_t>(candidate.site);
      const Cost distance = own + candidate.cost + state.price[v];
      if (distance < tree.distance[v]) {
        tree.distance[v] = distance;
        tree.parent[v] = static_cast<std::int32_t>(u);
        tree_row_[v] = row;
      }
    }
  }
}

// Tree arcs are tight, so the row that made one will do as long as it stays.
template <class Cost>
std::int32_t CandidateArcs<Cost>::tight_row(std::size_t u, std::size_t v,
                                            const FlowState<Cost>& state) {
  const std::int32_t row = tree_row_[v];
  const bool stayed = state.label[static_cast<std::size_t>(row)] == static_cast<std::int32_t>(u);
  return stayed ? row : -1;
}

template <class Cost>
std::vector<std::int32_t> CandidateArcs<Cost>::tight_rows(std::size_t u, std::size_t v,
                                                          std::size_t limit,
                                                          const FlowState<Cost>& state) {
  std::vector<std::int32_t> rows;
  for (const std::int32_t row : members_.of(u)) {
    const Cost* const costs = costs_->row(static_cast<std::size_t>(row));
    if (costs[v] + state.price[v] == costs[u] + state.price[u]) rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  if (rows.size() > limit) rows.resize(limit);
  return rows;
}

template <class Cost>
void CandidateArcs<Cost>::move(std::int32_t row, std::size_t v, FlowState<Cost>& state) {
  const auto i = static_cast<std::size_t>(row);
  members_.move(row, static_cast<std::size_t>(state.label[i]), v);
  state.label[i] = static_cast<std::int32_t>(v);
}

template class CandidateArcs<std::int32_t>;
template class CandidateArcs<std::int64_t>;

}  // namespace moefy
