#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/model/calibration_tokens.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// What the options of `split` say about one layer. All of it is a result option.
struct SplitConfig {
  std::int64_t experts = 0;      ///< routed experts E
  std::int64_t shared = 0;       ///< always-on experts S; each list is n / (E + S) wide
  std::string weights = "auto";  ///< auto (gate of gated layers, else up), gate, up, down, concat
  std::string normalize = "l2";  ///< l2 or none
  std::string sizes = "equal";   ///< equal, N, N,N,…, or MIN..MAX
  std::string order = "id";      ///< neurons inside an expert: id, or norm or activity, both
                                 ///< largest first
  bool recorded = false;         ///< recordings of the layer are at hand
  bool neuron_pairs = false;     ///< … of which the method makes matrices of all pairs of neurons
  std::int64_t top_k = 0;        ///< routed: experts a token is sent to
  std::string coactivation = "count";  ///< coactivation: count, clamped, product
  std::int64_t coact_block = 8;        ///< … clamped: tokens a block; 0: all in one
  double active_fraction = 0.1;        ///< … count and activation: marked neurons of a token
  std::string assign = "exact";        ///< gradient: exact or greedy
  std::string criterion = "max";       ///< gradient, prune: the most (max) or least (min)
                                       ///< important neurons; prune: or random ones
  std::string score_norm = "sum";      ///< gradient, prune: none, sum, rank, zscore
  std::string sharing = "none";        ///< gradient: none, or neurons in several experts: inner,
                                       ///< inter
  double keep = 1;                     ///< prune: share of the neurons that stay
  BalancedKMeansConfig kmeans;         ///< start, restarts, iterations, seed
};

/// What a method works with. Buffers live as long as the worker and are reused from layer to layer.
struct SplitWorkspace {
  /// Rows in host memory.
  explicit SplitWorkspace(Backend& backend_in)
      : SplitWorkspace(backend_in, make_host_rows(backend_in.threads())) {}
  SplitWorkspace(Backend& backend_in, std::unique_ptr<RowMatrix> rows_in)
      : backend(backend_in), kmeans(backend_in), rows(std::move(rows_in)) {}
  Backend& backend;
  BalancedKMeans kmeans;
  std::unique_ptr<RowMatrix> rows;
};

struct SplitTask {
  const LayerInfo& layer;
  const SplitConfig& config;
  const RowSource& source;
  const LayerResult* start = nullptr;  ///< the same layer of an older map (--init-from), or none
  std::stop_token stop;
  /// What was recorded of the layer (config.recorded), or none: its inputs, and the importance of
  /// its neurons [text clusters, num_neurons] where the recordings hold it.
  CalibrationTokens* tokens = nullptr;
  const Matrix<double>* importance = nullptr;
};

/// What a method needs beside the weights.
enum class RecordingNeed { none, inputs, importance };

/// A way to split one layer: one file a method.
class Splitter {
 public:
  virtual ~Splitter() = default;
  virtual std::string name() const = 0;
  virtual RecordingNeed needs(const SplitConfig& /*config*/) const { return RecordingNeed::none; }
  /// Everything of the result but fingerprint and rank. Throws InputError (NaN, infeasible sizes)
  /// and Interrupted; messages do not name the layer, the caller does.
  virtual LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const = 0;
};

/// Exact balanced k-means on the rows (docs/architecture.md, "Balanced k-means").
std::unique_ptr<Splitter> make_kmeans_splitter();
/// A keyed random balanced split: vector j mod E, Fisher-Yates (LLaMA-MoE, EMNLP 2024,
/// "Independent-Random"). A baseline.
std::unique_ptr<Splitter> make_random_splitter();
/// Neuron i in expert floor(i / m): the order of the file. A baseline.
std::unique_ptr<Splitter> make_contiguous_splitter();
/// Those that look at recordings; each says in its file where it comes from.
std::unique_ptr<Splitter> make_coactivation_splitter();
std::unique_ptr<Splitter> make_activation_splitter();
std::unique_ptr<Splitter> make_gradient_splitter();
std::unique_ptr<Splitter> make_routed_splitter();
std::unique_ptr<Splitter> make_prune_splitter();

/// The matrix that is clustered and the one the router is fitted to.
std::string resolved_weights(const SplitConfig& config, const LayerInfo& layer);
FfnRole router_role(const LayerInfo& layer);
/// Roles in the order in which every method reads them (one that is read twice stands there twice):
/// what has to travel to a rank without files.
std::vector<FfnRole> roles_read(const SplitConfig& config, const LayerInfo& layer);
/// Columns of the clustered matrix.
std::int64_t clustered_columns(const SplitConfig& config, const LayerInfo& layer);

/// Problems of `config` with this layer, for all layers before any work: experts against neurons,
/// --sizes against both, --weights gate without a gate, sums of sizes. Empty: none.
std::vector<std::string> split_problems(const SplitConfig& config, const LayerInfo& layer);
/// The neurons of the always-on experts, ascending: those with the largest energy Σ h² ‖down‖² on
/// the recorded tokens; without recordings those with the largest product of row norms over the
/// layer's matrices, which is that energy for inputs without a preferred direction. Lowest id on
/// ties.
std::vector<std::int32_t> pick_shared(const SplitTask& task, SplitWorkspace& workspace);

/// Neurons of the shared experts together, and capacities of the routed ones.
std::size_t shared_neurons(const SplitConfig& config, std::size_t num_neurons);
Capacities routed_capacities(const SplitConfig& config, std::size_t num_neurons);

/// Neurons of each list where experts share neurons: one number of --sizes, else ceil(n / E) for
/// `inner` and floor(n / (E + S)) for `inter`.
std::size_t sharing_width(const SplitConfig& config, std::size_t num_neurons);
/// Neurons that `prune` keeps: floor(n · keep), at least 1.
std::size_t kept_neurons(const SplitConfig& config, std::size_t num_neurons);

/// The result for labels [num_neurons] that came about otherwise than by clustering rows, measured
/// on the rows that `task` names; without a router and fingerprint.
LayerResult result_of_labels(const SplitTask& task, SplitWorkspace& workspace,
                             const std::string& method, std::span<const std::int32_t> label);

/// The same for lists that may share neurons, with the centroid router: means and inertia are those
/// of each list's rows.
LayerResult result_of_lists(const SplitTask& task, SplitWorkspace& workspace,
                            const std::string& method, NeuronLists lists);

/// Σ over the routed lists of the squared distances of their rows to the list's mean, fp64. rows
/// [num_neurons, dim]; `centroids` [num_experts, dim] if wanted.
double inertia_of_lists(Backend& backend, const RowsView& rows, const NeuronLists& lists,
                        Matrix<float>* centroids = nullptr);

/// The rows that an earlier result was clustered by, read again: what a check recomputes.
struct LabelledRows {
  RowsView rows;                    ///< [num_routed, dim], in the workspace; where experts share
                                    ///< neurons [num_neurons, dim]
  std::vector<std::int32_t> label;  ///< [num_routed], by the result's partition
};
/// `result` belongs to `layer` (same number of neurons).
LabelledRows rows_of_result(const LayerInfo& layer, const LayerResult& result,
                            const RowSource& source, SplitWorkspace& workspace);

}  // namespace moefy
