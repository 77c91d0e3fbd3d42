#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// An undirected graph with whole edge weights; both directions are listed.
struct NeuronGraph {
  std::vector<std::int64_t> begin;      ///< [num_vertices + 1]: where each one's edges begin
  std::vector<std::int32_t> neighbour;  ///< ascending for each vertex
  std::vector<std::int64_t> weight;

  std::size_t num_vertices() const { return begin.size() - 1; }
  /// Edges over vertex pairs.
  double density() const;
};

/// Edges where neurons are active together often enough: theta is 0.99 times the 10th percentile
/// (linear interpolation) of all entries of `coactivation` [n, n] (symmetric), the percentile
/// raised by 10 while it is 0; an edge i-j has weight floor(coactivation / theta) where that is at
/// least 1. InputError if all entries are 0. (MoEfication, ACL Findings 2022, section 3.1.)
NeuronGraph coactivation_graph(const Matrix<double>& coactivation);

/// Σ of the weights of edges between different parts.
std::int64_t edge_cut(const NeuronGraph& graph, std::span<const std::int32_t> part);

/// METIS' k-way partition with `parts` parts of nearly equal size (3 % tolerance).
/// Only in builds with METIS (metis_available); UsageError in others.
std::vector<std::int32_t> partition_graph(const NeuronGraph& graph, std::size_t parts,
                                          std::uint64_t seed);
bool metis_available();
/// UsageError that says how to get it where this build has none.
void require_metis();

/// Parts of the given sizes: one exact balanced assignment of every vertex by the weight of its
/// edges into each part of `part`.
std::vector<std::int32_t> rebalance_parts(const NeuronGraph& graph,
                                          std::span<const std::int32_t> part,
                                          const Capacities& capacities);

/// Swaps two vertices of different parts as long as that lowers the cut: in each pass every vertex
/// in turn with the partner of the largest gain (lowest number on ties), at most 10 passes.
void swap_improving(const NeuronGraph& graph, std::size_t parts, std::vector<std::int32_t>& part);

}  // namespace moefy
