#pragma once

#include <cstdint>
#include <span>
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
  CholeskyFactor factor_;
};

/// out [T, num_experts] = inputs · weightᵀ (+ bias).
void router_scores(const RouterWeights& router, MatrixView<const float> inputs,
                   MatrixView<float> out, ThreadPool& threads);

/// chosen [T, num_experts] = 1 for the `top_k` largest scores of each token (lowest expert on
/// ties), else 0.
void choose_experts(MatrixView<const float> scores, std::size_t top_k, MatrixView<float> chosen,
                    ThreadPool& threads);

/// Root mean square of the logits, less the bias, over the tokens: what the gate scale of a host is
/// chosen by.
double logit_spread(const RouterWeights& router, CalibrationTokens& tokens);

}  // namespace moefy
