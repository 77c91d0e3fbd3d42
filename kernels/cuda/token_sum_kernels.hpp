#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "cuda/operand.hpp"

namespace moefy::cuda {

// Sums over tokens in fp64; all pointers are device memory, matrices row-major.

/// sum [m, n] += a · bᵀ, multiplied in fp32 by a tile of our own; a [m, k], b [n, k]. `lower`: the
/// lower triangle alone.
void add_own_products(const Operand<float>& a, const Operand<float>& b, std::size_t m,
                      std::size_t n, std::size_t k, bool lower, double* sum, cudaStream_t stream);
/// sum [rows, stride], columns [0, cols), += product [rows, cols].
void add_products(const float* product, std::size_t rows, std::size_t cols, double* sum,
                  std::size_t stride, cudaStream_t stream);
/// sum [m, n] -= (scale · left_i) · right_j.
void subtract_outer(double scale, const double* left, const double* right, std::size_t m,
                    std::size_t n, double* sum, cudaStream_t stream);
/// See GramSum::add_clamped; sums [n, n].
void add_clamped(double* open, double quanta, std::size_t n, double* sum, cudaStream_t stream);
/// out [n] = the diagonal of matrix [n, n].
void read_diagonal(const double* matrix, std::size_t n, double* out, cudaStream_t stream);
void add_to_diagonal(double* matrix, std::size_t n, double added, cudaStream_t stream);

}  // namespace moefy::cuda
