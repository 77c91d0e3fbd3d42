#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "site_arcs.hpp"
#include "site_loops.hpp"

namespace moefy {

/// Successive shortest paths on the graph of the sites (and the slack node): moves surplus to where
/// rows are missing along paths of reduced cost 0, and keeps every reduced cost >= 0 by prices. The
/// labels are then optimal for the sizes reached. (Ahuja, Magnanti, Orlin, "Network Flows", 9.7.)
template <class Cost>
class AugmentingPaths {
 public:
  /// Runs until nothing is in excess. False: the arcs lead no excess to any deficit; then
  /// `reached()` are the sites where more arcs are needed.
  bool run(SiteArcs<Cost>& arcs, FlowState<Cost>& state, InstructionSet set);

  std::int64_t augmentations() const { return augmentations_; }
  const std::vector<std::int32_t>& reached() const { return tree_.done; }

 private:
  static constexpr Cost kUnreached = std::numeric_limits<Cost>::max();
  struct Step {
    std::int32_t row;  // -1: a step from or to the slack node
    std::size_t from;
    std::size_t to;
  };

  void grow_tree(bool serve_many);
  std::size_t nearest_open(Cost* distance) const;
  void relax_slack(Cost distance);
  void raise_prices();
  void serve(std::size_t sink);
  bool trace_path(std::size_t sink);
  bool slack_arc_open(std::size_t u, std::size_t v) const;
  void take(const Step& step);
  void serve_ties(std::size_t source, std::size_t sink);

  SiteArcs<Cost>* arcs_ = nullptr;
  FlowState<Cost>* state_ = nullptr;
  const SiteLoops<Cost>* loops_ = nullptr;
  PathTree<Cost> tree_;
  std::size_t sinks_in_tree_ = 0;
  std::vector<char> used_;  // the arc from the parent has been used since the tree was grown
  std::vector<Step> path_;
  std::int64_t surplus_ = 0;
  std::int64_t augmentations_ = 0;
};

}  // namespace moefy
