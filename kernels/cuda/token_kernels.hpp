#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/operand.hpp"
#include "moefy/backend/linear_algebra.hpp"

namespace moefy::cuda {

// Work on blocks of tokens; all pointers are device memory, matrices row-major. T tokens, n
// neurons, E experts.

/// out [m, n] = a · bᵀ by a tile of our own; a [m, k], b [n, k].
void own_products(const Operand<float>& a, const Operand<float>& b, std::size_t m, std::size_t n,
                  std::size_t k, float* out, cudaStream_t stream);

/// What ffn_hidden does behind its products: hidden [T, n] and up [T, n] (null without a gate), the
/// first of which is activated; biases [n] or null.
struct HiddenParts {
  float* hidden = nullptr;
  const float* up = nullptr;
  const float* first_bias = nullptr;  ///< the gate's, or up's where there is no gate
  const float* up_bias = nullptr;
};
void finish_hidden(const HiddenParts& parts, Activation activation, std::size_t tokens,
                   std::size_t n, cudaStream_t stream);

/// See LinearAlgebra::add_squares_of_columns.
void add_squares_of_columns(const float* rows, std::size_t num_rows, std::size_t cols, double* sums,
                            cudaStream_t stream);
/// out [rows, num_columns] = map(from [rows, width] at [t, columns[j]]).
void gather_columns(const float* from, std::size_t rows, std::size_t width,
                    const std::int32_t* columns, std::size_t num_columns, ValueMap map, float* out,
                    cudaStream_t stream);
/// out[t · stride] = √(left_t · right_t), summed in fp64; left and right [rows, cols].
void norms_of_products(const float* left, const float* right, std::size_t rows, std::size_t cols,
                       float* out, std::size_t stride, cudaStream_t stream);

/// Lists one after the other: list e is entry[begin[e]] .. entry[begin[e + 1]].
struct DeviceLists {
  const std::int32_t* entry = nullptr;
  const std::int64_t* begin = nullptr;  ///< [count + 1]
  std::size_t count = 0;
};
/// out [T, E] of the experts' neurons.
void expert_scores(const float* hidden, std::size_t tokens, std::size_t n,
                   const DeviceLists& experts, ExpertScore score, float* out, cudaStream_t stream);
/// See LinearAlgebra::leave_out. `experts_of`: the experts of each neuron, -1 for a shared one;
/// neurons behind the last list are in none.
void leave_out(const float* hidden, std::size_t tokens, std::size_t n,
               const DeviceLists& experts_of, const float* chosen, std::size_t experts, float* out,
               cudaStream_t stream);

/// See LinearAlgebra::part_hidden; factor and missing may be null.
struct HiddenChoice {
  const float* chosen = nullptr;  ///< [T, experts]
  std::size_t experts = 0;
  const std::int32_t* label = nullptr;  ///< [n]
  const float* factor = nullptr;        ///< [T]
};
void part_hidden(const float* hidden, std::size_t tokens, std::size_t n, const HiddenChoice& choice,
                 float* kept, float* missing, cudaStream_t stream);
void weighted_squares(const float* hidden, std::size_t tokens, std::size_t n, const float* weight,
                      float* out, cudaStream_t stream);

/// marks [rows, cols] = 1 for the `count` (at least 1) largest values of each row, or magnitudes;
/// lowest column on ties.
void mark_largest(const float* values, std::size_t rows, std::size_t cols, std::size_t count,
                  bool magnitudes, float* marks, cudaStream_t stream);

}  // namespace moefy::cuda
