#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/balance/assignment.hpp"
#include "moefy/balance/start_method.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// Which earlier stages lead to the exact EM.
struct StartSchedule {
  int faiss_iterations = 3;      ///< free Lloyd iterations of FAISS
  bool subsample = true;         ///< start on every 4th block of 64 rows; false: all rows
  bool loose_iterations = true;  ///< int8 iterations balanced by price passes only, before the EM
};

struct BalancedKMeansConfig {
  StartMethod start = StartMethod::faiss;
  StartSchedule schedule;
  int num_redo = 1;          ///< restarts; lowest J wins, lowest number on ties
  int max_iterations = 300;  ///< fp32 E-steps
  std::uint64_t seed = 0;
};

/// A start from an earlier result instead of StartMethod.
struct WarmStart {
  std::vector<std::int32_t> label;  ///< [num_rows] or empty
  Matrix<float> centroids;          ///< [num_sites, dim] or empty (means of label are used)
  std::vector<double> prices;       ///< [num_sites] real units, or empty
};

struct BalancedKMeansResult {
  std::vector<std::int32_t> label;
  Matrix<float> centroids;           ///< means of these labels
  std::vector<std::int32_t> prices;  ///< fixed point, at 2^cost_scale_log2
  int cost_scale_log2 = 0;
  double inertia = 0;  ///< J in fp64
  double inertia_initial = 0;
  double inertia_unconstrained = 0;
  double inertia_random = 0;  ///< see LayerResult
  double duality_gap = 0;     ///< relative, see LayerResult
  StopReason stop_reason = StopReason::cap;
  std::vector<double> trace;                            ///< Q by fp32 E-step
  std::vector<SolverStatistics> steps;                  ///< one an fp32 E-step
  std::vector<std::pair<std::string, double>> seconds;  ///< prepare, start, costs, solve, means, …
  std::int64_t zero_rows = 0;
  std::int64_t exact_columns = 0;  ///< columns of fp32 costs computed, of num_rows · dim products
};

/// start → exact capacity-constrained EM to the fixpoint. Keeps every buffer from layer to layer;
/// one per rank. Method: docs/architecture.md, "Balanced k-means".
class BalancedKMeans {
 public:
  explicit BalancedKMeans(Backend& backend);
  ~BalancedKMeans();

  /// rows [num_rows, dim], in host memory or the backend's, unchanged. `layer` keys the random
  /// streams. Throws InputError for NaN or infinity (row, column) and for infeasible capacities,
  /// UsageError for StartMethod::faiss_gpu without such a build or a backend on a GPU, Interrupted
  /// at the next safe point (well below 0.5 s) after a stop is requested.
  BalancedKMeansResult run(const RowsView& rows, const Capacities& capacities,
                           const BalancedKMeansConfig& config, std::uint64_t layer,
                           const WarmStart* warm = nullptr, std::stop_token stop = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Recomputes costs at the given centroids and checks labels and prices against them: what
/// `inspect --verify --model` does. Gap relative as in LayerResult.
struct ClusteringCheck {
  double inertia = 0;
  double duality_gap = 0;
  double gap_bound = 0;  ///< n·τ relative to the cost: rounding between machines
  double inertia_unconstrained = 0;
};
ClusteringCheck check_clustering(Backend& backend, const RowsView& rows,
                                 const Capacities& capacities, MatrixView<const float> centroids,
                                 std::span<const double> prices, int cost_scale_log2,
                                 std::span<const std::int32_t> label);

/// The fixed-point scale that a clustering of these rows would use: costs are rounded to multiples
/// of 2^-scale.
int cost_scale_of(Backend& backend, const RowsView& rows);

/// What arbitrary labels [num_rows] are worth, each site at its own mean.
struct LabelFigures {
  double inertia = 0;         ///< J in fp64
  double inertia_random = 0;  ///< see LayerResult
  std::int64_t zero_rows = 0;
  Matrix<float> centroids;  ///< [num_sites, dim]
};
LabelFigures figures_of_labels(Backend& backend, const RowsView& rows,
                               std::span<const std::int32_t> label, std::size_t num_sites);

/// Version of the FAISS library, "1.7.3".
std::string faiss_version();

}  // namespace moefy
