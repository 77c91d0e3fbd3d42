#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moefy/backend/rows.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// Router from the weights alone (MoEfication, ACL Findings 2022, section 3.2, with cosine
/// similarity): row e is c_e / ‖c_e‖, c_e the mean of the unit rows of expert e's neurons. Linear
/// in x, so stock hosts can carry it.
///
/// rows [num_rows, hidden_size]: gate rows of a gated layer, else up rows, of any length (they are
/// brought to unit length here). label [num_rows]: expert of each row; negative rows take no part.
/// logit_std is that of inputs with unit variance: the root mean square of the row norms. Experts
/// whose unit rows cancel out get a zero row and are listed in `zero_experts`.
RouterWeights fit_centroid_router(MatrixView<const float> rows, std::span<const std::int32_t> label,
                                  std::size_t num_experts,
                                  std::vector<std::int64_t>* zero_experts = nullptr);
/// The same bits for rows wherever a backend has them.
RouterWeights fit_centroid_router(RowMatrix& rows, std::span<const std::int32_t> label,
                                  std::size_t num_experts);

/// The same for lists that may share neurons: rows [num_neurons, hidden_size].
RouterWeights fit_centroid_router(MatrixView<const float> rows, const NeuronLists& lists);
RouterWeights fit_centroid_router(RowMatrix& rows, const NeuronLists& lists);

/// Row e is c_e itself; kind kEuclideanCentroid.
RouterWeights fit_euclidean_centroids(MatrixView<const float> rows, const NeuronLists& lists);

}  // namespace moefy
