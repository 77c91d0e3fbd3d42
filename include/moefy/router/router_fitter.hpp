#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "moefy/model/calibration_tokens.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// What the options of `route` say about every layer; result options.
struct RouterConfig {
  std::string target;                 ///< what a router learns to tell; empty: the router's default
  std::string similarity = "cosine";  ///< centroid: cosine, or euclidean, for evaluation alone
  double ridge = 1.0;                 ///< ridge: relative to the mean diagonal
  bool selection_bias = false;        ///< ridge: with an intercept
  std::string score = "l2";           ///< mlp-topk: what an expert is worth to a token
  int epochs = 0;                     ///< mlp, mlp-topk: 0: the router's default
  std::int64_t top_k = 0;             ///< experts a token is sent to: mlp-topk and metrics
  std::uint64_t seed = 0;
};

/// One layer to fit a router to.
struct RouterTask {
  const FfnLayer& layer;
  const NeuronLists& lists;
  const RouterConfig& config;
  CalibrationTokens* tokens = nullptr;  ///< recorded inputs, or none
  std::stop_token stop;
};

/// A way to make a router: one file each.
class RouterFitter {
 public:
  virtual ~RouterFitter() = default;
  virtual std::string name() const = 0;
  virtual bool needs_recordings() const { return false; }
  /// Values of --target, the default first; none: it has no target.
  virtual std::vector<std::string> targets() const { return {}; }
  /// weight [num_experts, hidden_size]; logit_std is left 0. Throws InputError (nothing to learn
  /// from) and Interrupted.
  virtual RouterWeights fit(const RouterTask& task) const = 0;
};

/// From the weights alone: rows c_e / ‖c_e‖ (fit_centroid_router), the same directions with the
/// mean norm of the layer's router rows, N(0, 0.02²), zeros.
std::unique_ptr<RouterFitter> make_centroid_fitter();
std::unique_ptr<RouterFitter> make_mean_gate_fitter();
std::unique_ptr<RouterFitter> make_random_fitter();
std::unique_ptr<RouterFitter> make_zero_fitter();
/// From recordings; each says in its file where it comes from.
std::unique_ptr<RouterFitter> make_ridge_fitter();
std::unique_ptr<RouterFitter> make_mlp_fitter();
std::unique_ptr<RouterFitter> make_mlp_topk_fitter();

/// Neurons of each routed expert.
using ExpertMembers = std::vector<std::vector<std::int32_t>>;
ExpertMembers members_of(const NeuronLists& lists);

/// MoEfication's oracle scores an expert by the sum of its neurons' magnitudes (with ReLU and no
/// gate hidden has no negative values).
inline constexpr ExpertScore kOracleScore = ExpertScore::l1;
/// LLaMA-MoE's statistics by name: plain, positive, l1, l2.
ExpertScore expert_score_named(const std::string& name);

/// Spread of the logits of inputs with unit variance: the root mean square of the row norms.
double spread_of_rows(const Matrix<float>& weight);

}  // namespace moefy
