#pragma once

#include <cstdint>
#include <span>

#include "moefy/split/splitter.hpp"

namespace moefy {

/// Neurons that are marked for each token: those with the largest |hidden| (lowest id on ties).
std::size_t marked_neurons(double fraction, std::size_t num_neurons);

/// How often two neurons are active together, over all tokens: [neurons, neurons], symmetric, for
/// the given neurons (ascending). config.coactivation says how it is counted (MoEfication, ACL
/// Findings 2022, section 3.1; LLaMA-MoE, EMNLP 2024):
///   count    tokens on which both are marked (marked_neurons; of ReLU layers without a gate all
///            that are above 0); integers
///   clamped  Σ over blocks of config.coact_block tokens of min(1, Σ_t |h_i| |h_j|), in multiples
///            of 2^-20
///   product  Σ_t max(h_i, 0) max(h_j, 0)
Matrix<double> count_coactivation(CalibrationTokens& tokens, const SplitConfig& config,
                                  std::span<const std::int32_t> neurons);

}  // namespace moefy
