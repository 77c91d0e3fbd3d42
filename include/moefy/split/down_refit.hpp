#pragma once

#include <cstdint>
#include <span>

#include "moefy/model/calibration_tokens.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

struct DownRefit {
  Matrix<float> down;  ///< [num_neurons, hidden_size], rounded to the file's dtype
  double error_before = 0;  ///< Σ_t w_t ‖y_t - y'_t‖² / Σ_t w_t ‖y_t‖² with the dense down rows
  double error_after = 0;  ///< the same with these, before rounding
};

/// Down projections that make up for the neurons which the routing skips: weighted least squares of
/// the dense output on the hidden activations that stay on, with a ridge of `lambda` times the mean
/// diagonal that pulls towards the dense rows. `label` [num_neurons], `token_weight` [num_tokens].
/// `dense_square`: Σ_t w_t ‖y_t‖², y_t the dense output without its bias.
DownRefit refit_down(CalibrationTokens& tokens, std::span<const float> token_weight,
                     double dense_square, const RouterWeights& router,
                     std::span<const std::int32_t> label, std::int64_t top_k, double lambda);

/// The error alone, without a refit.
double routed_error(CalibrationTokens& tokens, std::span<const float> token_weight,
                    double dense_square, const RouterWeights& router,
                    std::span<const std::int32_t> label, std::int64_t top_k);

}  // namespace moefy
