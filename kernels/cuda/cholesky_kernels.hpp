#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace moefy::cuda {

/// The lower triangle of matrix [n, n] (device, row-major, symmetric) becomes that of its Cholesky
/// factor, 32 columns at a time. `failed` (device) becomes 1 if the matrix is not positive definite
/// or not finite; set it to 0 before.
void cholesky_factor(double* matrix, std::size_t n, int* failed, cudaStream_t stream);

/// x [n, m] becomes (factor · factorᵀ)⁻¹ · x; all device memory.
void cholesky_solve(const double* factor, std::size_t n, double* x, std::size_t m,
                    cudaStream_t stream);

}  // namespace moefy::cuda
