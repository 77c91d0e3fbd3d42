#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moefy/split/splitter.hpp"

namespace moefy {

/// The recorded importance of the layer's neurons for the first `clusters` text clusters, brought
/// to one scale by --score-norm and turned by --criterion so that larger is better [clusters,
/// num_neurons].
Matrix<double> importance_scores(const SplitTask& task, std::size_t clusters);

/// The same where expert e and text cluster e belong together: of the first E clusters. UsageError
/// if the recordings have fewer.
Matrix<double> scores_of_experts(const SplitTask& task);

/// Neuron ids of each row, best score first, lowest id on ties [rows][num_neurons].
std::vector<std::vector<std::int32_t>> neurons_by_score(const Matrix<double>& scores);

/// The sum of each column [num_neurons].
std::vector<double> summed_scores(const Matrix<double>& scores);

}  // namespace moefy
