#pragma once

#include "cuda/cost_kernels.hpp"
#include "cuda/device_code.cuh"

/// What becomes of the product of row i and column c. All of them are cheap and exact in the same
/// way whoever computed the product.
namespace moefy::cuda {

__device__ inline std::int32_t fixed_point(float cost, float scale) {
  const float scaled = fmaxf(cost, 0.0F) * scale;
  return __float2int_rn(fminf(scaled, static_cast<float>(kMaxCost)));
}

struct FinishExact {
  const float* squared_norm;
  const float* column_norm;
  RowSelection selection;
  CostColumns out;
  __device__ void operator()(std::size_t i, std::size_t c, float dot) const {
    const float cost = squared_norm[selection.global(i)] + column_norm[c] - 2 * dot;
    out.q[i * out.stride + static_cast<std::size_t>(out.columns[c])] = fixed_point(cost, out.scale);
  }
};

struct FinishApproximate {
  const float* squared_norm;
  const float* column_norm;
  const float* row_step;
  const float* column_step;
  RowSelection selection;
  CostColumns out;
  __device__ void operator()(std::size_t i, std::size_t c, int dot) const {
    const std::size_t row = selection.global(i);
    const float product = (-2.0F * row_step[row] * column_step[c]) * static_cast<float>(dot);
    const float cost = (squared_norm[row] + column_norm[c]) + product;
    out.q[i * out.stride + static_cast<std::size_t>(out.columns[c])] = fixed_point(cost, out.scale);
  }
};

struct FinishChange {
  const float* norm_change;
  const float* row_step;
  const float* column_step;
  const std::int32_t* base;
  CostColumns out;
  __device__ void operator()(std::size_t i, std::size_t c, int dot) const {
    const float product = (-2.0F * row_step[i] * column_step[c]) * static_cast<float>(dot);
    const float limit = static_cast<float>(kMaxCost);
    const float change = (norm_change[c] + product) * out.scale;
    const std::size_t place = i * out.stride + static_cast<std::size_t>(out.columns[c]);
    const std::int32_t cost = base[place] + __float2int_rn(fminf(fmaxf(change, -limit), limit));
    out.q[place] = cost < 0 ? 0 : (cost > kMaxCost ? kMaxCost : cost);
  }
};

struct FinishProduct {
  float* out;
  std::size_t num_columns;
  __device__ void operator()(std::size_t i, std::size_t c, float dot) const {
    out[i * num_columns + c] = dot;
  }
};

}  // namespace moefy::cuda
