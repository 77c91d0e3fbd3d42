#include "augmenting_paths.hpp"

#include <algorithm>

namespace moefy {

template <class Cost>
bool AugmentingPaths<Cost>::run(SiteArcs<Cost>& arcs, FlowState<Cost>& state, InstructionSet set) {
  arcs_ = &arcs;
  state_ = &state;
  loops_ = &site_loops<Cost>(set);
  tree_.distance.resize(state.stride + 1);
  tree_.closed.resize(state.stride + 1);
  tree_.parent.resize(state.stride + 1);
  augmentations_ = 0;
  surplus_ = state.surplus();
  // One tree serves several deficits as long as there are enough of them to pay for a whole tree.
  const auto many = static_cast<std::int64_t>(std::max<std::size_t>(8, state.num_sites / 4));
  while (surplus_ > 0) {
    grow_tree(surplus_ >= many);
    if (sinks_in_tree_ == 0) return false;
    raise_prices();
    used_.assign(state.stride + 1, 0);
    for (const std::int32_t node : tree_.done) {
      const auto sink = static_cast<std::size_t>(node);
      if (state.excess[sink] < 0) serve(sink);
    }
  }
  return true;
}

template <class Cost>
void AugmentingPaths<Cost>::grow_tree(bool serve_many) {
  const FlowState<Cost>& state = *state_;
  constexpr Cost kLowest = std::numeric_limits<Cost>::min();
  std::size_t num_sinks = 0;
  for (std::size_t v = 0; v <= state.stride; ++v) {
    const bool is_node = v < state.num_sites || (v == state.slack() && state.has_slack);
    tree_.distance[v] = !is_node ? kLowest : state.excess[v] > 0 ? Cost{0} : kUnreached;
    tree_.closed[v] = is_node ? kLowest : kUnreached;
    tree_.parent[v] = -1;
    num_sinks += state.excess[v] < 0 ? 1 : 0;
  }
  tree_.done.clear();
  sinks_in_tree_ = 0;
  const std::size_t wanted = serve_many ? num_sinks : 1;
  while (true) {
    Cost distance = 0;
    const std::size_t u = nearest_open(&distance);
    if (distance == kUnreached) return;
    tree_.closed[u] = kUnreached;
    tree_.done.push_back(static_cast<std::int32_t>(u));
    if (state.excess[u] < 0 && ++sinks_in_tree_ == wanted) return;
    if (u == state.slack()) {
      relax_slack(distance);
      continue;
    }
    if (!arcs_->is_empty(u)) arcs_->relax(u, state, tree_);
    if (state.has_slack && state.granted[u] < state.upper[u]) {
      const Cost candidate = distance + state.price[state.slack()] - state.price[u];
      if (candidate < tree_.distance[state.slack()]) {
        tree_.distance[state.slack()] = candidate;
        tree_.parent[state.slack()] = static_cast<std::int32_t>(u);
      }
    }
  }
}

template <class Cost>
std::size_t AugmentingPaths<Cost>::nearest_open(Cost* distance) const {
  const std::size_t site =
      loops_->first_least(tree_.distance.data(), tree_.closed.data(), state_->num_sites, distance);
  const std::size_t slack = state_->slack();
  const Cost slack_distance = std::max(tree_.distance[slack], tree_.closed[slack]);
  if (slack_distance >= *distance) return site;
  *distance = slack_distance;
  return slack;
}

template <class Cost>
void AugmentingPaths<Cost>::relax_slack(Cost distance) {
  const FlowState<Cost>& state = *state_;
  const Cost base = distance - state.price[state.slack()];
  for (std::size_t v = 0; v < state.num_sites; ++v) {
    if (state.granted[v] <= state.lower[v] || base + state.price[v] >= tree_.distance[v]) continue;
    tree_.distance[v] = base + state.price[v];
    tree_.parent[v] = static_cast<std::int32_t>(state.slack());
  }
}

// Keeps all reduced costs >= 0 and makes the arcs of the tree tight.
template <class Cost>
void AugmentingPaths<Cost>::raise_prices() {
  const Cost largest = tree_.distance[static_cast<std::size_t>(tree_.done.back())];
  for (const std::int32_t node : tree_.done) {
    const auto v = static_cast<std::size_t>(node);
    state_->price[v] += largest - tree_.distance[v];
  }
}

template <class Cost>
void AugmentingPaths<Cost>::serve(std::size_t sink) {
  if (!trace_path(sink)) return;
  const std::size_t source = path_.back().from;
  for (const Step& step : path_) {
    used_[step.to] = 1;
    take(step);
  }
  --state_->excess[source];
  ++state_->excess[sink];
  --surplus_;
  ++augmentations_;
  // An arc that was tight before the tree is a sign of equal rows: serve them at once, not one a
  // tree.
  if (path_.size() == 1 && tree_.distance[sink] == 0) serve_ties(source, sink);
}

// The steps from `sink` back to a root that still has too many; false if there is no such path
// left.
template <class Cost>
bool AugmentingPaths<Cost>::trace_path(std::size_t sink) {
  path_.clear();
  std::size_t v = sink;
  while (tree_.parent[v] >= 0) {
    const auto u = static_cast<std::size_t>(tree_.parent[v]);
    if (used_[v]) return false;
    std::int32_t row = -1;
    if (u == state_->slack() || v == state_->slack()) {
      if (!slack_arc_open(u, v)) return false;
    } else {
      row = arcs_->tight_row(u, v, *state_);
      if (row < 0) return false;
    }
    path_.push_back({row, u, v});
    v = u;
  }
  return !path_.empty() && state_->excess[v] > 0;
}

template <class Cost>
bool AugmentingPaths<Cost>::slack_arc_open(std::size_t u, std::size_t v) const {
  if (u == state_->slack()) return state_->granted[v] > state_->lower[v];
  return state_->granted[u] < state_->upper[u];
}

template <class Cost>
void AugmentingPaths<Cost>::take(const Step& step) {
  if (step.row >= 0) {
    arcs_->move(step.row, step.to, *state_);
  } else if (step.from == state_->slack()) {
    --state_->granted[step.to];
  } else {
    ++state_->granted[step.from];
  }
}

template <class Cost>
void AugmentingPaths<Cost>::serve_ties(std::size_t source, std::size_t sink) {
  FlowState<Cost>& state = *state_;
  std::int64_t amount = std::min(state.excess[source], -state.excess[sink]);
  if (amount <= 0) return;
  if (source == state.slack()) {
    amount = std::min(amount, state.granted[sink] - state.lower[sink]);
    state.granted[sink] -= amount;
  } else if (sink == state.slack()) {
    amount = std::min(amount, state.upper[source] - state.granted[source]);
    state.granted[source] += amount;
  } else {
    const auto rows = arcs_->tight_rows(source, sink, static_cast<std::size_t>(amount), state);
    for (const std::int32_t row : rows) arcs_->move(row, sink, state);
    amount = static_cast<std::int64_t>(rows.size());
  }
  state.excess[source] -= amount;
  state.excess[sink] += amount;
  surplus_ -= amount;
  augmentations_ += amount;
}

template class AugmentingPaths<std::int32_t>;
template class AugmentingPaths<std::int64_t>;

}  // namespace moefy
