#pragma once

#include <cstdint>
#include <vector>

#include "flow_state.hpp"

namespace moefy {

/// One shortest-path tree over the sites and the slack node.
template <class Cost>
struct PathTree {
  AlignedBuffer<Cost> distance;        ///< [stride + 1]
  AlignedBuffer<Cost> closed;          ///< [stride + 1] lowest value: open, largest: done
  AlignedBuffer<std::int32_t> parent;  ///< [stride + 1] -1: a root, or not reached
  std::vector<std::int32_t> done;      ///< in the order of (distance, index)
};

/// The residual arcs between sites: u -> v costs the least q_iv - q_iu over the rows i of u.
template <class Cost>
class SiteArcs {
 public:
  virtual ~SiteArcs() = default;
  virtual bool is_empty(std::size_t u) const = 0;
  /// Takes the arcs out of the newly done site u into the tree.
  virtual void relax(std::size_t u, const FlowState<Cost>& state, PathTree<Cost>& tree) = 0;
  /// The row that would move along tree arc u -> v, or -1 if its reduced cost is above 0 by now.
  virtual std::int32_t tight_row(std::size_t u, std::size_t v, const FlowState<Cost>& state) = 0;
  /// At most `limit` rows, lowest first, that could move along u -> v at reduced cost 0.
  virtual std::vector<std::int32_t> tight_rows(std::size_t u, std::size_t v, std::size_t limit,
                                               const FlowState<Cost>& state) = 0;
  /// Moves a row to site v; its label tells where from.
  virtual void move(std::int32_t row, std::size_t v, FlowState<Cost>& state) = 0;
};

/// The rows of every site, with removal in constant time.
class SiteMembers {
 public:
  void assign(std::span<const std::int32_t> label, std::size_t num_sites);
  void move(std::int32_t row, std::size_t u, std::size_t v);
  const std::vector<std::int32_t>& of(std::size_t u) const { return members_[u]; }

 private:
  std::vector<std::vector<std::int32_t>> members_;
  std::vector<std::int32_t> position_;  // of a row in the list of its site
};

}  // namespace moefy
