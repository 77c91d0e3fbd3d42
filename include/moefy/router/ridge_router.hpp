#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/model/calibration_tokens.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// What each expert's score on a token shall be.
enum class RidgeTarget {
  output,        ///< the norm of its output
  log_output,    ///< the logarithm of that norm
  score,         ///< the sum of |hidden| over its neurons
  energy,        ///< the squared norm of its output
  topk,          ///< 1 where it is among the top_k of the largest norms, else 0
  standardized,  ///< the norm less the expert's mean over the tokens, over its standard deviation
};

/// Routers fitted in closed form: least squares of a target per expert on the layer's inputs, with
/// a ridge of `ridge` times the mean of the Gram matrix' diagonal. The Gram matrix is factored once
/// a layer; every partition of the layer then costs one right-hand side.
class RidgeRouter {
 public:
  /// `intercept`: inputs and targets are fitted less their means, and what that leaves is the
  /// routers' bias. Reads all tokens once. InputError if no ridge makes the system solvable.
  RidgeRouter(CalibrationTokens& tokens, double ridge, bool intercept = false);

  /// `members`: neurons of each routed expert. `top_k`: experts a token, for RidgeTarget::topk
  /// alone (1 .. number of experts). kind "ridge"; logit_std is left 0 (logit_spread).
  RouterWeights fit(CalibrationTokens& tokens,
                    const std::vector<std::vector<std::int32_t>>& members,
                    RidgeTarget target = RidgeTarget::output, std::size_t top_k = 0) const;

 private:
  std::vector<double> mean_input_;  ///< empty: no intercept
  std::unique_ptr<CholeskyFactor> factor_;
};

/// A router's matrices where a backend computes.
class RouterOnBackend {
 public:
  /// Both must outlive the object; after `router` has changed, so must the object.
  RouterOnBackend(const RouterWeights& router, LinearAlgebra& algebra);

  /// out [T, num_experts] = inputs · weightᵀ (+ bias); of two layers output · tanh(weight · x /
  /// ‖x‖), of kEuclideanCentroid 1 - ‖x / ‖x‖ - weight‖². inputs [T, hidden_size].
  void scores(const BackendMatrix& inputs, BackendMatrix& out) const;
  void scores_without_bias(const BackendMatrix& inputs, BackendMatrix& out) const;
  /// chosen [T, num_experts] = 1 for the `top_k` largest scores of each token (lowest expert on
  /// ties), else 0.
  void choose(const BackendMatrix& inputs, std::size_t top_k, BackendMatrix& chosen) const;

 private:
  void two_layer_scores(const BackendMatrix& inputs, BackendMatrix& out) const;
  void nearness_scores(const BackendMatrix& inputs, BackendMatrix& out) const;

  const RouterWeights& router_;
  LinearAlgebra& algebra_;
  std::unique_ptr<BackendMatrix> weight_;
  std::unique_ptr<BackendMatrix> output_;   ///< null unless there are two layers
  std::unique_ptr<BackendMatrix> scratch_;  ///< what the scores are made of
};

/// Root mean square of the logits, less the bias, over the tokens: what the gate scale of a host is
/// chosen by.
double logit_spread(const RouterWeights& router, CalibrationTokens& tokens);

}  // namespace moefy
