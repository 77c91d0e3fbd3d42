#pragma once

#include <cstdint>
#include <span>

#include "moefy/backend/backend.hpp"

namespace moefy {

/// [num_sites, dim]; an empty site is at 0.
Matrix<float> means_of(const SumsView& sums);

/// J of the labels at `centroids`, from their `sums`: these are exact, so the rows need not be read
/// again, unless J is what little a cancellation leaves.
double inertia_of_sums(Backend& backend, const Points& points, const SumsView& sums,
                       MatrixView<const float> centroids, std::span<const std::int32_t> label);

/// J to be expected where num_sites sets of given sizes, none empty, are drawn at random and each
/// stands at its mean: the rows' scatter about their common mean times (n - k) / (n - 1), whatever
/// the sizes. `sums`: of all rows, by any labels.
double random_inertia(const Points& points, const SumsView& sums, std::size_t num_sites);

}  // namespace moefy
