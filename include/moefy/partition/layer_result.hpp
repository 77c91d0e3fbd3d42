#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moefy/core/hash.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/partition/partition.hpp"

namespace moefy {

/// Kind of the routers that score by nearness of x / ‖x‖ to the rows of `weight` (the MoEfication
/// program). Not linear in x, so for evaluation alone: no host computes it.
inline constexpr const char* kEuclideanCentroid = "centroid-euclidean";

/// A router. Linear: scores = weight · x (+ bias). With a second layer: scores = output ·
/// tanh(weight · x / ‖x‖), which no stock host computes.
struct RouterWeights {
  std::string kind;         ///< "centroid", …
  Matrix<float> weight;     ///< [num_experts, hidden_size]
  std::vector<float> bias;  ///< [num_experts] or empty
  Matrix<float> output;     ///< second layer [num_experts, num_experts], or empty
  double logit_std = 0;     ///< spread of the logits; from recordings, else for x of unit variance
};

/// Why a clustering ended.
enum class StopReason : std::uint8_t { fixpoint, rounding, cap, not_clustered };
std::string to_string(StopReason reason);
StopReason stop_reason_from(const std::string& text);  ///< InputError if unknown

/// Everything the map keeps of one layer; results only, no times and no hosts.
struct LayerResult {
  std::int64_t layer_index = 0;
  std::string name;  ///< tensor prefix, e.g. "model.layers.7.mlp"
  std::int64_t hidden_size = 0;
  std::string method;      ///< kmeans, random, contiguous
  std::string weights;     ///< clustered matrix: gate, up, down, concat
  std::string activation;  ///< silu, gelu_pytorch_tanh, relu, …
  std::string normalize;   ///< l2 or none
  Partition partition;     ///< empty where `sharing` is set
  /// Lists that may overlap or omit neurons (kind "sharing"); none: the partition.
  std::optional<NeuronLists> sharing;
  Matrix<float> centroids;     ///< [num_experts, dim], in the clustered space
  std::vector<double> prices;  ///< [num_experts], real units (fixed-point price · 2^-s)
  RouterWeights router;
  /// Measured factor of the routed experts' output that keeps the layer's weight against the
  /// residual stream (LLaMA-MoE's output scale); none: not measured.
  std::optional<double> score_scale;

  double inertia = 0;                ///< J, fp64, squared distances to the returned centroids
  double inertia_initial = 0;        ///< Q of the first fp32 E-step
  double inertia_random = 0;         ///< J to be expected of a random split of the same layer
  double inertia_unconstrained = 0;  ///< sum_i min_j c(i,j) at the final centroids
  double duality_gap = 0;            ///< gap · 2^-s / max(cost, 1 quantum)
  std::int64_t cost_scale_log2 = 0;
  std::int64_t iterations = 0;  ///< fp32 E-steps
  bool converged = true;
  StopReason stop_reason = StopReason::not_clustered;
  Digest fingerprint;  ///< over name, dtype, shape, bytes of its FFN tensors

  std::vector<double> inertia_trace;        ///< stats/inertia_trace, Q by fp32 E-step
  std::vector<std::int64_t> augmentations;  ///< stats/augmentations, one an E-step
  std::vector<std::int64_t> surplus;        ///< stats/surplus before the exact finish
  std::int64_t zero_rows = 0;               ///< rows of norm 0 in the clustered matrix
  /// Figures of the router and of the layer's output with it, by name (stats/metrics), names
  /// ascending and all finite: "output_error", "lost_energy", ….
  std::vector<std::pair<std::string, double>> metrics;

  /// Seconds by phase (read, prepare, start, cluster, …): shown and kept under /run, never in the
  /// layer's group.
  std::vector<std::pair<std::string, double>> seconds;
  std::int64_t rank = 0;  ///< which rank did it (for /run)

  /// The neurons of every expert, whatever the kind.
  const NeuronLists& lists() const { return sharing ? *sharing : partition; }
};

}  // namespace moefy
