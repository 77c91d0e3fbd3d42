#include "cuda/cost_kernels.hpp"

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_kernels.hpp"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;
/// Words of a row (floats, or four int8) that a tile holds at a time.
constexpr unsigned kDepth = 16;

/// fp32 products, added in the order of the elements with one rounding a step.
struct Fp32 {
  using Word = float;
  using Sum = float;
  __device__ static Sum add(Word a, Word b, Sum sum) { return __fmaf_rn(a, b, sum); }
};

/// Exact int8 products, four to a word.
struct Int8 {
  using Word = int;
  using Sum = int;
  __device__ static Sum add(Word a, Word b, Sum sum) { return __dp4a(a, b, sum); }
};

/// A block computes kRows x kColumns products; a thread kOwnRows x kOwnColumns of them, rows and
/// columns apart by the number of threads along them.
template <unsigned kRowsIn, unsigned kColumnsIn, unsigned kOwnRowsIn, unsigned kOwnColumnsIn>
struct Tile {
  static constexpr unsigned kRows = kRowsIn;
  static constexpr unsigned kColumns = kColumnsIn;
  static constexpr unsigned kOwnRows = kOwnRowsIn;
  static constexpr unsigned kOwnColumns = kOwnColumnsIn;
  static constexpr unsigned kAcross = kColumns / kOwnColumns;  ///< threads along the columns
  static constexpr unsigned kDown = kRows / kOwnRows;          ///< threads along the rows
  static_assert(kAcross * kDown == kBlock);
};
using NarrowTile = Tile<128, 16, 4, 4>;
using WideTile = Tile<64, 64, 8, 4>;

/// One word of padding keeps the threads that fill a tile on different banks.
template <class Word, class Shape>
struct TileMemory {
  Word rows[kDepth][Shape::kRows + 1];
  Word columns[kDepth][Shape::kColumns + 1];
};

/// Products of rows x columns, both [*, width] words; `finish` gets each one with its row and
/// column. width: words of a row in memory.
template <class Arithmetic, class Shape, class Finish>
__global__ void product_kernel(const typename Arithmetic::Word* rows,
                               const typename Arithmetic::Word* columns, ProductShape shape,
                               std::size_t width, Finish finish) {
  using Word = typename Arithmetic::Word;
  auto& tile = *block_memory<TileMemory<Word, Shape>>();
  const unsigned across = threadIdx.x % Shape::kAcross;
  const unsigned down = threadIdx.x / Shape::kAcross;
  const std::size_t first_row = std::size_t{blockIdx.x} * Shape::kRows;
  const std::size_t first_column = std::size_t{blockIdx.y} * Shape::kColumns;
  typename Arithmetic::Sum sum[Shape::kOwnRows][Shape::kOwnColumns] = {};

  for (std::size_t first = 0; first < width; first += kDepth) {
    for (unsigned e = threadIdx.x; e < kDepth * Shape::kRows; e += kBlock) {
      const std::size_t i = first_row + e / kDepth;
      const std::size_t l = first + e % kDepth;
      tile.rows[e % kDepth][e / kDepth] =
          i < shape.num_rows && l < width ? rows[shape.selection.global(i) * width + l] : Word{0};
    }
    for (unsigned e = threadIdx.x; e < kDepth * Shape::kColumns; e += kBlock) {
      const std::size_t j = first_column + e / kDepth;
      const std::size_t l = first + e % kDepth;
      tile.columns[e % kDepth][e / kDepth] =
          j < shape.num_columns && l < width ? columns[j * width + l] : Word{0};
    }
    __syncthreads();
#pragma unroll
    for (unsigned l = 0; l < kDepth; ++l) {
      Word x[Shape::kOwnRows];
      Word c[Shape::kOwnColumns];
#pragma unroll
      for (unsigned r = 0; r < Shape::kOwnRows; ++r) {
        x[r] = tile.rows[l][down + r * Shape::kDown];
      }
#pragma unroll
      for (unsigned s = 0; s < Shape::kOwnColumns; ++s) {
        c[s] = tile.columns[l][across + s * Shape::kAcross];
      }
#pragma unroll
      for (unsigned r = 0; r < Shape::kOwnRows; ++r) {
#pragma unroll
        for (unsigned s = 0; s < Shape::kOwnColumns; ++s) {
          sum[r][s] = Arithmetic::add(x[r], c[s], sum[r][s]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (unsigned r = 0; r < Shape::kOwnRows; ++r) {
    const std::size_t i = first_row + down + r * Shape::kDown;
    if (i >= shape.num_rows) continue;
#pragma unroll
    for (unsigned s = 0; s < Shape::kOwnColumns; ++s) {
      const std::size_t j = first_column + across + s * Shape::kAcross;
      if (j < shape.num_columns) finish(i, j, sum[r][s]);
    }
  }
}

__device__ std::int32_t fixed_point(float cost, float scale) {
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

unsigned tiles(std::size_t count, unsigned tile) {
  return static_cast<unsigned>((count + tile - 1) / tile);
}

template <class Arithmetic, class Shape, class Finish>
void run_tiles(const typename Arithmetic::Word* rows, const typename Arithmetic::Word* columns,
               const ProductShape& shape, std::size_t width, Finish finish, cudaStream_t stream) {
  const dim3 grid(tiles(shape.num_rows, Shape::kRows), tiles(shape.num_columns, Shape::kColumns));
  launch(product_kernel<Arithmetic, Shape, Finish>, grid, kBlock,
         sizeof(TileMemory<typename Arithmetic::Word, Shape>), stream, rows, columns, shape, width,
         finish);
}

template <class Arithmetic, class Finish>
void run_products(const typename Arithmetic::Word* rows, const typename Arithmetic::Word* columns,
                  const ProductShape& shape, std::size_t width, Finish finish,
                  cudaStream_t stream) {
  if (shape.num_columns <= NarrowTile::kColumns) {
    run_tiles<Arithmetic, NarrowTile>(rows, columns, shape, width, finish, stream);
  } else {
    run_tiles<Arithmetic, WideTile>(rows, columns, shape, width, finish, stream);
  }
}

/// int8 rows as words of four.
const int* words(const std::int8_t* values) { return reinterpret_cast<const int*>(values); }
std::size_t words_of(std::size_t dim) { return padded_dim(dim) / sizeof(int); }

}  // namespace

void exact_costs(const ProductShape& shape, const float* x, const float* squared_norm,
                 const float* c, const float* column_norm, const CostColumns& out,
                 cudaStream_t stream) {
  run_products<Fp32>(x, c, shape, shape.dim,
                     FinishExact{squared_norm, column_norm, shape.selection, out}, stream);
}

void approximate_costs(const ProductShape& shape, const QuantizedFactors& factors,
                       const float* squared_norm, const float* column_norm, const CostColumns& out,
                       cudaStream_t stream) {
  run_products<Int8>(words(factors.rows), words(factors.columns), shape, words_of(shape.dim),
                     FinishApproximate{squared_norm, column_norm, factors.row_step,
                                       factors.column_step, shape.selection, out},
                     stream);
}

void changed_costs(const ProductShape& shape, const QuantizedFactors& factors,
                   const float* norm_change, const std::int32_t* base, const CostColumns& out,
                   cudaStream_t stream) {
  run_products<Int8>(words(factors.rows), words(factors.columns), shape, words_of(shape.dim),
                     FinishChange{norm_change, factors.row_step, factors.column_step, base, out},
                     stream);
}

void products(const ProductShape& shape, const float* x, const float* c, float* out,
              cudaStream_t stream) {
  run_products<Fp32>(x, c, shape, shape.dim, FinishProduct{out, shape.num_columns}, stream);
}

}  // namespace moefy::cuda
