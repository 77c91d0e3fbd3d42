#pragma once

#include <cstdint>
#include <span>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

/// s = 28 - ceil(log2(4 R²)): costs between vectors of norm at most R, times 2^s, stay below
/// kMaxCost. 0 if R is 0. InputError if fp32 cannot carry squared distances of that size.
int cost_scale_log2(double largest_squared_norm);

/// a = 40 - ceil(log2 max|x|): elements, times 2^a, stay below 2^40. 0 if all are 0.
int sum_scale_log2(float largest_element);

/// A stored price in quanta of 2^-s, within what the solver accepts.
std::int32_t price_from_real(double price, int cost_scale_log2);

/// gap / max(cost, one quantum)
double relative_gap(const Certificate& certificate);

/// Largest squared norm of a centroid after `common_mean` (may be empty) is subtracted.
double largest_squared_norm(const Matrix<float>& centroids, std::span<const float> common_mean);

}  // namespace moefy
