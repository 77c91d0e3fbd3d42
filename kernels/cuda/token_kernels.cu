#include "cuda/token_kernels.hpp"

#include "cuda/activation_code.cuh"
#include "cuda/strided_products.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;

/// Index of this thread in the grid, and the number of all: one element a thread.
__device__ std::size_t thread_index() { return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ std::size_t num_threads() { return std::size_t{gridDim.x} * blockDim.x; }

/// Queues a kernel with a thread for each of `count` elements.
template <class... Parameters, class... Arguments>
void launch_elements(void (*kernel)(Parameters...), std::size_t count, cudaStream_t stream,
                     Arguments... arguments) {
  launch(kernel, strided_grid(count, kBlock, kBlock), kBlock, 0, stream, arguments...);
}

/// Queues a kernel with a warp for each of `count` items.
template <class... Parameters, class... Arguments>
void launch_warps(void (*kernel)(Parameters...), std::size_t count, cudaStream_t stream,
                  Arguments... arguments) {
  launch(kernel, strided_grid(count, kBlock / kWarp, kBlock), kBlock, 0, stream, arguments...);
}

struct StoreProduct {
  float* out;
  std::size_t stride;
  __device__ void operator()(std::size_t i, std::size_t j, float value) const {
    out[i * stride + j] = value;
  }
};

__global__ void hidden_kernel(HiddenParts parts, Activation activation, std::size_t count,
                              std::size_t n) {
  for (std::size_t e = thread_index(); e < count; e += num_threads()) {
    const std::size_t i = e % n;
    float value = parts.hidden[e];
    if (parts.first_bias != nullptr) value += parts.first_bias[i];
    value = activated(activation, value);
    if (parts.up != nullptr) {
      value *= parts.up_bias != nullptr ? parts.up[e] + parts.up_bias[i] : parts.up[e];
    }
    parts.hidden[e] = value;
  }
}

/// Rows whose squares a block of column_squares_kernel holds, of which a thread fetches kOwn.
constexpr unsigned kWarps = kBlock / kWarp;
constexpr unsigned kOwn = 16;
constexpr unsigned kSquareRows = kWarps * kOwn;
using Squares = double[kSquareRows][kWarp];

/// A block kWarp columns: all of its warps fetch, and the first adds in the order of the rows.
__global__ void column_squares_kernel(const float* rows, std::size_t num_rows, std::size_t cols,
                                      double* sums) {
  auto& square = *block_memory<Squares>();
  const unsigned warp = threadIdx.x / kWarp;
  const std::size_t j = std::size_t{blockIdx.x} * kWarp + lane_index();
  const bool there = j < cols;
  const float* const column = rows + (there ? j : 0);
  double sum = there ? sums[j] : 0;
  for (std::size_t first = 0; first < num_rows; first += kSquareRows) {
    float value[kOwn];
#pragma unroll
    for (unsigned v = 0; v < kOwn; ++v) {
      value[v] = load_or_zero(column, (first + v * kWarps + warp) * cols, num_rows * cols);
    }
    __syncthreads();  // the squares were in use
#pragma unroll
    for (unsigned v = 0; v < kOwn; ++v) {
      const auto wide = static_cast<double>(value[v]);
      square[v * kWarps + warp][lane_index()] = wide * wide;
    }
    __syncthreads();
    if (warp > 0) continue;
#pragma unroll 16
    for (unsigned t = 0; t < kSquareRows; ++t) sum += square[t][lane_index()];
  }
  if (there && warp == 0) sums[j] = sum;
}

__device__ float mapped(float value, ValueMap map) {
  switch (map) {
    case ValueMap::same:
      return value;
    case ValueMap::magnitude:
      return fabsf(value);
    case ValueMap::positive:
      return value > 0 ? value : 0.0F;
    case ValueMap::is_positive:
      return value > 0 ? 1.0F : 0.0F;
  }
  return value;
}

__global__ void gather_kernel(const float* from, std::size_t count, std::size_t width,
                              const std::int32_t* columns, std::size_t num_columns, ValueMap map,
                              float* out) {
  for (std::size_t e = thread_index(); e < count; e += num_threads()) {
    const std::size_t t = e / num_columns;
    out[e] = mapped(from[t * width + static_cast<std::size_t>(columns[e % num_columns])], map);
  }
}

__global__ void norm_kernel(const float* left, const float* right, std::size_t rows,
                            std::size_t cols, float* out, std::size_t stride) {
  for (std::size_t t = warp_index(); t < rows; t += num_warps()) {
    double sum = 0;
    for (std::size_t j = lane_index(); j < cols; j += kWarp) {
      sum += static_cast<double>(left[t * cols + j]) * static_cast<double>(right[t * cols + j]);
    }
    sum = warp_sum(sum);
    // By rounding it may be negative.
    if (lane_index() == 0) out[t * stride] = static_cast<float>(sqrt(sum > 0 ? sum : 0.0));
  }
}

__device__ double score_term(double value, ExpertScore score) {
  switch (score) {
    case ExpertScore::l1:
      return fabs(value);
    case ExpertScore::plain:
      return value;
    case ExpertScore::positive:
      return value > 0 ? value : 0.0;
    case ExpertScore::l2:
      return value * value;
  }
  return value;
}

__global__ void score_kernel(const float* hidden, std::size_t tokens, std::size_t n,
                             DeviceLists experts, ExpertScore score, float* out) {
  for (std::size_t e = warp_index(); e < tokens * experts.count; e += num_warps()) {
    const float* const row = hidden + e / experts.count * n;
    const std::int64_t end = experts.begin[e % experts.count + 1];
    double sum = 0;
    for (std::int64_t at = experts.begin[e % experts.count] + lane_index(); at < end; at += kWarp) {
      sum += score_term(static_cast<double>(row[experts.entry[at]]), score);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) {
      out[e] = static_cast<float>(score == ExpertScore::plain ? fabs(sum) : sum);
    }
  }
}

__global__ void leave_out_kernel(const float* hidden, std::size_t count, std::size_t n,
                                 DeviceLists experts_of, const float* chosen, std::size_t experts,
                                 float* out) {
  for (std::size_t e = thread_index(); e < count; e += num_threads()) {
    const std::size_t i = e % n;
    const float* const choice = chosen + e / n * experts;
    const float value = hidden[e];
    float left = value;
    if (i < experts_of.count) {
      for (std::int64_t at = experts_of.begin[i]; at < experts_of.begin[i + 1]; ++at) {
        const std::int32_t expert = experts_of.entry[at];
        if (expert < 0 || choice[expert] != 0) left -= value;
      }
    }
    out[e] = left;
  }
}

__global__ void part_kernel(const float* hidden, std::size_t count, std::size_t n,
                            HiddenChoice choice, float* kept, float* missing) {
  for (std::size_t e = thread_index(); e < count; e += num_threads()) {
    const std::size_t t = e / n;
    const std::int32_t label = choice.label[e % n];
    const bool on = label < 0 || choice.chosen[t * choice.experts + label] != 0;
    const float value = choice.factor != nullptr ? choice.factor[t] * hidden[e] : hidden[e];
    kept[e] = on ? value : 0.0F;
    if (missing != nullptr) missing[e] = on ? 0.0F : value;
  }
}

__global__ void weighted_squares_kernel(const float* hidden, std::size_t count, std::size_t n,
                                        const float* weight, float* out) {
  for (std::size_t e = thread_index(); e < count; e += num_threads()) {
    out[e] = weight[e / n] * hidden[e] * hidden[e];
  }
}

}  // namespace

void own_products(const Operand<float>& a, const Operand<float>& b, std::size_t m, std::size_t n,
                  std::size_t k, float* out, cudaStream_t stream) {
  run_strided(a, b, m, n, k, false, StoreProduct{out, n}, stream);
}

void finish_hidden(const HiddenParts& parts, Activation activation, std::size_t tokens,
                   std::size_t n, cudaStream_t stream) {
  launch_elements(hidden_kernel, tokens * n, stream, parts, activation, tokens * n, n);
}

void add_squares_of_columns(const float* rows, std::size_t num_rows, std::size_t cols, double* sums,
                            cudaStream_t stream) {
  launch(column_squares_kernel, static_cast<unsigned>((cols + kWarp - 1) / kWarp), kBlock,
         sizeof(Squares), stream, rows, num_rows, cols, sums);
}

void gather_columns(const float* from, std::size_t rows, std::size_t width,
                    const std::int32_t* columns, std::size_t num_columns, ValueMap map, float* out,
                    cudaStream_t stream) {
  launch_elements(gather_kernel, rows * num_columns, stream, from, rows * num_columns, width,
                  columns, num_columns, map, out);
}

void norms_of_products(const float* left, const float* right, std::size_t rows, std::size_t cols,
                       float* out, std::size_t stride, cudaStream_t stream) {
  launch_warps(norm_kernel, rows, stream, left, right, rows, cols, out, stride);
}

void expert_scores(const float* hidden, std::size_t tokens, std::size_t n,
                   const DeviceLists& experts, ExpertScore score, float* out, cudaStream_t stream) {
  launch_warps(score_kernel, tokens * experts.count, stream, hidden, tokens, n, experts, score,
               out);
}

void leave_out(const float* hidden, std::size_t tokens, std::size_t n,
               const DeviceLists& experts_of, const float* chosen, std::size_t experts, float* out,
               cudaStream_t stream) {
  launch_elements(leave_out_kernel, tokens * n, stream, hidden, tokens * n, n, experts_of, chosen,
                  experts, out);
}

void part_hidden(const float* hidden, std::size_t tokens, std::size_t n, const HiddenChoice& choice,
                 float* kept, float* missing, cudaStream_t stream) {
  launch_elements(part_kernel, tokens * n, stream, hidden, tokens * n, n, choice, kept, missing);
}

void weighted_squares(const float* hidden, std::size_t tokens, std::size_t n, const float* weight,
                      float* out, cudaStream_t stream) {
  launch_elements(weighted_squares_kernel, tokens * n, stream, hidden, tokens * n, n, weight, out);
}

}  // namespace moefy::cuda
