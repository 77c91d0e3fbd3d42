#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "moefy/core/matrix.hpp"
#include "moefy/model/calibration_tokens.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// What a two-layer router is told its scores mean.
enum class RouterLoss {
  binary,  ///< one yes or no an expert: mean binary cross-entropy with logits
  softmax  ///< a distribution over experts: KL divergence, mean over tokens
};

/// A loss with its gradients by both matrices of a router.
struct RouterGradient {
  double loss = 0;
  MatrixView<const float> weight;  ///< [num_experts, hidden_size]
  MatrixView<const float> output;  ///< [num_experts, num_experts]
};

/// Computes gradients of one batch after the other.
class RouterGradients {
 public:
  /// `algebra` must outlive the object.
  explicit RouterGradients(LinearAlgebra& algebra);
  /// Of scores = output · tanh(weight · x̂) against `target` [T, num_experts] on unit inputs
  /// [T, hidden_size]; valid until the next.
  RouterGradient compute(const RouterWeights& router, MatrixView<const float> unit_inputs,
                         MatrixView<const float> target, RouterLoss loss);

 private:
  LinearAlgebra& algebra_;
  std::unique_ptr<BackendMatrix> inputs_, weight_, output_, inner_, scores_, delta_, turned_, back_,
      weight_gradient_, output_gradient_;
  Matrix<float> delta_on_host_, turned_on_host_;
};

/// How a two-layer router is trained.
struct RouterTraining {
  RouterLoss loss = RouterLoss::binary;
  int epochs = 30;
  std::size_t batch = 512;
  double learning_rate = 0.01;
  double weight_decay = 0;        ///< AdamW's, decoupled
  bool decay_on_plateau = false;  ///< rate · 0.9 after 10 epochs without gain; ends at rate / 100
  double validation = 0.1;        ///< share of the runs of 512 tokens that are held back
  std::uint64_t seed = 0;
};

/// Trains `router` by Adam on the tokens' inputs. target [num_tokens, num_experts]; `judge` scores
/// a block of held-back tokens (scores, first row of targets) and returns a sum over them, larger
/// is better. The best epoch is kept, the untrained router included, the earliest on ties. Throws
/// Interrupted.
using RouterJudge = std::function<double(MatrixView<const float> scores, std::size_t token)>;
void train_router(RouterWeights& router, CalibrationTokens& tokens, const Matrix<float>& target,
                  const RouterTraining& training, const RouterJudge& judge, std::stop_token stop);

}  // namespace moefy
