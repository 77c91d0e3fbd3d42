#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "moefy/core/matrix.hpp"
#include "moefy/partition/neuron_lists.hpp"

namespace moefy {

/// The `wanted` neurons that most experts would take among their `width` best, found by counting in
/// rounds (LLaMA-MoE, EMNLP 2024, residual experts of "Sharing-Inter"): each round takes those that
/// stand among the first `width` remaining neurons of most experts, largest summed score first,
/// lowest id on ties. In the order in which they are taken. scores [experts, num_neurons]; width
/// >= 1, wanted <= num_neurons.
std::vector<std::int32_t> wanted_by_most(const Matrix<double>& scores, std::size_t width,
                                         std::size_t wanted);

/// "Sharing-Inner": every expert takes its `width` best neurons, best first, whoever else has them.
NeuronLists inner_sharing(const Matrix<double>& scores, std::size_t width);

/// "Sharing-Inter": `num_shared` always-on experts of `width` neurons that most experts want, in
/// the order in which they are taken; of the other neurons each routed expert takes its `width`
/// best, best first.
NeuronLists inter_sharing(const Matrix<double>& scores, std::size_t width, std::size_t num_shared);

/// Σ of the experts' scores of their members.
double total_score(const Matrix<double>& scores, const NeuronLists& lists);

}  // namespace moefy
