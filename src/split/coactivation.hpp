#pragma once

#include <cstdint>
#include <span>

#include "moefy/split/splitter.hpp"

namespace moefy {

/// marks [T, num_neurons] = 1 for the max(1, round(fraction · num_neurons)) neurons of each token
/// with the largest |hidden| (lowest id on ties), else 0; of ReLU layers for all that are above 0.
void mark_active(MatrixView<const float> hidden, double fraction, bool relu,
                 MatrixView<float> marks, ThreadPool& threads);

/// How often two neurons are active together, over all tokens: [neurons, neurons], symmetric, for
/// the given neurons (ascending). config.coactivation says how it is counted (MoEfication, ACL
/// Findings 2022, section 3.1; LLaMA-MoE, EMNLP 2024):
///   count    tokens on which both are marked (mark_active); integers
///   clamped  Σ over blocks of config.coact_block tokens of min(1, Σ_t |h_i| |h_j|), in multiples
///            of 2^-20
///   product  Σ_t max(h_i, 0) max(h_j, 0)
Matrix<double> count_coactivation(CalibrationTokens& tokens, const SplitConfig& config,
                                  std::span<const std::int32_t> neurons);

}  // namespace moefy
