#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "moefy/core/matrix.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// How the rows of a linear router lie to each other.
struct RouterFigures {
  double norm_min = 0;
  double norm_max = 0;
  double mean_cosine = 0;  ///< over all pairs of different, non-zero rows; 0 with fewer than two
};

/// How lists that share neurons cover their layer.
struct SharingFigures {
  double coverage = 0;                ///< share of the neurons that stand in a list
  std::vector<std::int32_t> omitted;  ///< those that stand in none, ascending
  std::int64_t duplicates = 0;        ///< members beyond the first of each neuron
  Matrix<double> overlap;  ///< |a ∩ b| / |a ∪ b| of the experts' lists [num_experts, num_experts]
  double mean_overlap = 0;  ///< over pairs of different experts; 0 with one expert
};

/// What reports say about one layer, derived from its result. Absent: not known or not defined
/// (a baseline, a division by zero).
struct LayerFigures {
  std::size_t size_min = 0;
  std::size_t size_max = 0;
  std::size_t shared_neurons = 0;
  std::optional<double> inertia_over_random;  ///< J / J of the keyed random balanced split
  std::optional<double> price_of_balance;     ///< J / sum_i min_j c(i,j) at the final centroids
  std::optional<RouterFigures> router;
  /// [num_experts] mean squared distance of an expert's rows to its centroid; only where the rows
  /// have unit length, for then it is 1 - |centroid|^2 (fewer than one row in a hundred is zero).
  std::vector<double> spread;
  std::optional<SharingFigures> sharing;  ///< absent for a partition
};

LayerFigures figures_of(const LayerResult& layer);

SharingFigures sharing_figures(const NeuronLists& lists);

/// Sizes of the experts, [num_experts].
std::vector<std::size_t> expert_sizes(const NeuronLists& lists);

}  // namespace moefy
