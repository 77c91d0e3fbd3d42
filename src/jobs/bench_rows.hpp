#pragma once

#include <vector>

#include "moefy/core/matrix.hpp"
#include "moefy/jobs/bench.hpp"

namespace moefy {

/// Shapes of layers of models in use, some with fewer columns.
const std::vector<BenchShape>& model_shapes();

/// [rows, columns] of Gaussian blobs of very unequal size (weight 1 / (1 + j)) and noise of their
/// own spread; the same for a shape.
Matrix<float> uneven_blobs(const BenchShape& shape);

}  // namespace moefy
