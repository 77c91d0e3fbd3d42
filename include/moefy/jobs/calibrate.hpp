#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "moefy/core/matrix.hpp"
#include "moefy/partition/layer_result.hpp"
#include "moefy/split/routed_split.hpp"

namespace moefy {

/// How `moefy calibrate` builds experts. Everything but device, threads, cache_bytes and force is a
/// result option.
struct CalibrateConfig {
  std::string model;              ///< path or name
  std::filesystem::path output;   ///< the map; refitted weights lie beside it
  std::int64_t granularity = 32;  ///< experts and shared ones together
  double active = 0.5;            ///< share of the neurons that run for a token
  std::int64_t shared = -1;       ///< always-on experts; -1: chosen (choose_expert_counts)
  double router_ridge = 1.0;      ///< relative to the mean diagonal
  double refit = 0.2;             ///< the same for down projections; 0: keep the dense ones
  int rounds = 4;                 ///< reassignments of neurons at most
  std::uint64_t seed = 0;
  std::string text;               ///< JSON text of what decides the calibration tokens
  std::string architecture_file;  ///< --architecture, or empty
  std::string backend = "cpu";    ///< who fits: reference, cpu or cuda
  int device = 0;                 ///< with cuda: an index among the visible GPUs
  std::size_t threads = 1;
  std::uint64_t cache_bytes = std::uint64_t{2} << 30;  ///< of activations kept by the backend
  bool force = false;                                  ///< replace what is there, start anew

  /// Every problem that can be told without opening a file.
  std::vector<std::string> validate() const;
};

struct ExpertCounts {
  std::int64_t experts = 0;  ///< routed ones
  std::int64_t shared = 0;
  std::int64_t top_k = 0;  ///< routed ones a token
};
/// With t = round(active · granularity) lists on for a token: `shared`, or where it is -1 about a
/// quarter of them (a third from t = 3/4 of all on, a half up to a quarter), at least one.
/// UsageError if no routed expert is left to choose. The calibrator takes the nearest number of
/// shared experts with which an MoE host can carry the model.
ExpertCounts choose_expert_counts(std::int64_t granularity, double active, std::int64_t shared);

/// Builds the experts of one layer after the other from what the model shows to each of them: the
/// caller runs the model (Python), this class does everything else. Per layer: begin, add once or
/// more, fit, apply; a layer that the journal holds needs begin and apply only. One thread.
class Calibrator {
 public:
  /// Opens the model, takes the output's lock and the journal beside it. Errors as `split`,
  /// DeviceError if the GPU is not there; a journal of another run gives way if no layer of it is
  /// finished.
  explicit Calibrator(const CalibrateConfig& config,
                      const std::function<void(const std::string&)>& warn = {});
  ~Calibrator();

  /// The output stands and was made of the same model, tokens and options.
  bool already_done() const;
  std::size_t num_layers() const;
  const LayerInfo& layer(std::size_t index) const;
  ExpertCounts counts() const;
  /// Who fits: Backend::name().
  std::string backend_name() const;
  /// Whether the journal holds this layer.
  bool finished(std::size_t layer) const;

  /// Ids of the tokens that the model wrote to be calibrated on, as keep_sampled was given them in
  /// this or an interrupted run; empty if there are none.
  std::vector<std::int64_t> sampled() const;
  /// Keeps them in the journal. IoError.
  void keep_sampled(std::span<const std::int64_t> ids);

  /// Loads a layer's weights.
  void begin(std::size_t layer);
  /// inputs [T, hidden_size]: what the FFN is given on T tokens; stream [T, hidden_size]: the
  /// residual stream to which its output is added. Copied. InputError for NaN or infinity.
  void add(MatrixView<const float> inputs, MatrixView<const float> stream);
  /// Splits the layer, fits router and down projections, and makes the result durable.
  const LayerResult& fit(std::stop_token stop = {});
  /// out [T, hidden_size] = what the converted FFN makes of inputs, with weights as they will be
  /// stored.
  void apply(MatrixView<const float> inputs, MatrixView<float> out);
  /// The same for all tokens that were added to this layer, in their order: cheaper, because their
  /// activations are at hand. Only after fit.
  void apply_to_added(MatrixView<float> out);
  /// Writes map and refitted weights and removes the journal. Every layer must be finished.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moefy
