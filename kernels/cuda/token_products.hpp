#pragma once

#include "cuda/blas.hpp"
#include "cuda/operand.hpp"
#include "cuda/runtime.hpp"

namespace moefy::cuda {

/// fp32 products of blocks of tokens: by cuBLAS where it is there, else by a tile of ours. Shapes
/// follow from layer and block alone, so that cuBLAS chooses the same algorithm on every rank.
class TokenProducts {
 public:
  TokenProducts(Stream& stream, Blas& blas) : stream_(stream), blas_(blas) {}

  /// out [m, n] = a · bᵀ; a [m, k], b [n, k], each of which may be turned.
  void multiply(const Operand<float>& a, const Operand<float>& b, std::size_t m, std::size_t n,
                std::size_t k, float* out);
  /// sum [n, m] += aᵀ · b in fp64; a [k, n], b [k, m]. `lower`: at least the lower triangle, and at
  /// the most the rows of that as far as their tile's diagonal.
  void add_block(const float* a, std::size_t n, const float* b, std::size_t m, std::size_t k,
                 bool lower, double* sum);

 private:
  Stream& stream_;
  Blas& blas_;
  DeviceBuffer<float> tile_;  ///< products on their way to a sum
};

}  // namespace moefy::cuda
