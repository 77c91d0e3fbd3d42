#pragma once

#include "cuda/cost_kernels.hpp"
#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"

/// Products of rows and columns, and what becomes of each of them at once, so that an n x k matrix
/// of products never stands in memory.
namespace moefy::cuda {

inline constexpr unsigned kProductBlock = 128;
/// Words of a row (floats, or four int8) that a tile holds at a time, and fours of them.
inline constexpr unsigned kDepth = 32;
inline constexpr unsigned kFours = kDepth / 4;

/// fp32 products, one rounding a step.
struct Fp32 {
  using Word = float;
  using Sum = float;
  static constexpr bool kExact = false;
  __device__ static Sum add(Word a, Word b, Sum sum) { return __fmaf_rn(a, b, sum); }
};

/// Exact int8 products, four to a word.
struct Int8 {
  using Word = int;
  using Sum = int;
  static constexpr bool kExact = true;
  __device__ static Sum add(Word a, Word b, Sum sum) { return __dp4a(a, b, sum); }
};

/// A block computes kRows x kColumns products; a thread kOwnRows x kOwnColumns of them, rows and
/// columns apart by the number of threads along them. Where that takes fewer threads than a block
/// has, groups of threads share the words of each step and add up their sums in the end.
template <unsigned kRowsIn, unsigned kColumnsIn, unsigned kOwnRowsIn, unsigned kOwnColumnsIn>
struct Tile {
  static constexpr unsigned kRows = kRowsIn;
  static constexpr unsigned kColumns = kColumnsIn;
  static constexpr unsigned kOwnRows = kOwnRowsIn;
  static constexpr unsigned kOwnColumns = kOwnColumnsIn;
  static constexpr unsigned kAcross = kColumns / kOwnColumns;  ///< threads along the columns
  static constexpr unsigned kDown = kRows / kOwnRows;          ///< threads along the rows
  static constexpr unsigned kGroup = kAcross * kDown;
  static constexpr unsigned kGroups = kProductBlock / kGroup;
  /// Fours that a thread fetches a step.
  static constexpr unsigned kRowFetches = kRows * kFours / kProductBlock;
  static constexpr unsigned kColumnFetches = kColumns * kFours / kProductBlock;
  static_assert(kGroups * kGroup == kProductBlock && kFours % kGroups == 0);
  static_assert(kRowFetches * kProductBlock == kRows * kFours);
  static_assert(kColumnFetches * kProductBlock == kColumns * kFours);
};
/// Few columns: memory is the limit, so many small blocks keep many loads in flight. Four groups
/// add up the words of a product.
using NarrowTile = Tile<32, 16, 4, 4>;
/// One group, which adds the words of a product in order: three widths, the same bits. The more
/// columns, the more sums a thread keeps for what it loads, because arithmetic becomes the limit.
using OrderedTile16 = Tile<64, 16, 4, 2>;
using OrderedTile32 = Tile<64, 32, 4, 4>;
using OrderedTile64 = Tile<64, 64, 8, 4>;

/// Two steps, so that one is filled while the other is used. One four of padding keeps neighbouring
/// rows on different banks.
template <class Word, class Shape>
struct TileMemory {
  Four<Word> step[2][Shape::kRows + Shape::kColumns][kFours + 1];
};

/// What a thread of product_kernel fetches: a four of some rows and columns each step. Where there
/// are no more of them it is the last one again, for products that nobody asks for.
template <class Word, class Shape>
class TileSource {
 public:
  static constexpr unsigned kFetches = Shape::kRowFetches + Shape::kColumnFetches;
  using Fetched = Four<Word>[kFetches];

  /// `width`: words of a row in memory.
  __device__ TileSource(const Word* rows, const Word* columns, const ProductShape& shape,
                        std::size_t width, std::size_t first_row, std::size_t first_column)
      : next_(threadIdx.x % kFours * 4), width_(width) {
#pragma unroll
    for (unsigned f = 0; f < kFetches; ++f) {
      const std::size_t own = (threadIdx.x + f * kProductBlock) / kFours;
      if (f < Shape::kRowFetches) {
        const std::size_t i = first_row + own;
        const std::size_t last = shape.num_rows - 1;
        from_[f] = rows + shape.selection.global(i < last ? i : last) * width + next_;
      } else {
        const std::size_t j = first_column + own - Shape::kRows;
        const std::size_t last = shape.num_columns - 1;
        from_[f] = columns + (j < last ? j : last) * width + next_;
      }
    }
  }

  /// This thread's share of the next kDepth words.
  __device__ void fetch(Fetched& fetched) {
    if (width_ % 4 == 0) {
#pragma unroll
      for (unsigned f = 0; f < kFetches; ++f) {
        fetched[f] = next_ < width_ ? *reinterpret_cast<const Four<Word>*>(from_[f]) : Four<Word>{};
      }
    } else {
      const std::size_t left = next_ < width_ ? width_ - next_ : 0;
#pragma unroll
      for (unsigned f = 0; f < kFetches; ++f) fetched[f] = load_four(from_[f], 0, left);
    }
#pragma unroll
    for (unsigned f = 0; f < kFetches; ++f) from_[f] += kDepth;
    next_ += kDepth;
  }
  __device__ static void store(const Fetched& fetched,
                               Four<Word> (&step)[Shape::kRows + Shape::kColumns][kFours + 1]) {
#pragma unroll
    for (unsigned f = 0; f < kFetches; ++f) {
      step[(threadIdx.x + f * kProductBlock) / kFours][threadIdx.x % kFours] = fetched[f];
    }
  }

 private:
  const Word* from_[kFetches];
  std::size_t next_;  ///< the word of a row that from_ points at
  std::size_t width_;
};

/// Adds up what the groups of a block have found, in their order; the sums of group 0 are complete
/// afterwards. `memory`: room for the sums of all other groups.
template <class Shape, class Sum>
__device__ void join_groups(Sum (&sum)[Shape::kOwnRows][Shape::kOwnColumns], Sum* memory) {
  constexpr unsigned kOwn = Shape::kOwnRows * Shape::kOwnColumns;
  const unsigned group = threadIdx.x / Shape::kGroup;
  const unsigned member = threadIdx.x % Shape::kGroup;
  __syncthreads();  // the memory was in use
  for (unsigned e = 0; e < kOwn && group > 0; ++e) {
    memory[((group - 1) * kOwn + e) * Shape::kGroup + member] =
        sum[e / Shape::kOwnColumns][e % Shape::kOwnColumns];
  }
  __syncthreads();
  if (group > 0) return;
#pragma unroll
  for (unsigned e = 0; e < kOwn; ++e) {
    for (unsigned other = 0; other + 1 < Shape::kGroups; ++other) {
      sum[e / Shape::kOwnColumns][e % Shape::kOwnColumns] +=
          memory[(other * kOwn + e) * Shape::kGroup + member];
    }
  }
}

/// `finish` gets each product with its row and column.
template <class Arithmetic, class Shape, class Finish>
__global__ void __launch_bounds__(kProductBlock)
    product_kernel(const typename Arithmetic::Word* rows, const typename Arithmetic::Word* columns,
                   ProductShape shape, std::size_t width, Finish finish) {
  using Word = typename Arithmetic::Word;
  using Source = TileSource<Word, Shape>;
  auto& memory = *block_memory<TileMemory<Word, Shape>>();
  const unsigned group = threadIdx.x / Shape::kGroup;
  const unsigned across = threadIdx.x % Shape::kAcross;
  const unsigned down = threadIdx.x % Shape::kGroup / Shape::kAcross;
  const std::size_t first_row = std::size_t{blockIdx.x} * Shape::kRows;
  const std::size_t first_column = std::size_t{blockIdx.y} * Shape::kColumns;
  Source source(rows, columns, shape, width, first_row, first_column);
  typename Arithmetic::Sum sum[Shape::kOwnRows][Shape::kOwnColumns] = {};
  typename Source::Fetched fetched;

  source.fetch(fetched);
  unsigned turn = 0;
  for (std::size_t first = 0; first < width; first += kDepth, turn ^= 1U) {
    auto& step = memory.step[turn];
    Source::store(fetched, step);
    __syncthreads();
    if (first + kDepth < width) source.fetch(fetched);
#pragma unroll
    for (unsigned f = 0; f < kFours; f += Shape::kGroups) {
      Four<Word> x[Shape::kOwnRows];
      Four<Word> c[Shape::kOwnColumns];
#pragma unroll
      for (unsigned r = 0; r < Shape::kOwnRows; ++r) {
        x[r] = step[down + r * Shape::kDown][f + group];
      }
#pragma unroll
      for (unsigned s = 0; s < Shape::kOwnColumns; ++s) {
        c[s] = step[Shape::kRows + across + s * Shape::kAcross][f + group];
      }
#pragma unroll
      for (unsigned w = 0; w < 4; ++w) {
#pragma unroll
        for (unsigned r = 0; r < Shape::kOwnRows; ++r) {
#pragma unroll
          for (unsigned s = 0; s < Shape::kOwnColumns; ++s) {
            sum[r][s] = Arithmetic::add(x[r].word[w], c[s].word[w], sum[r][s]);
          }
        }
      }
    }
  }
  if constexpr (Shape::kGroups > 1) {
    static_assert(sizeof(memory) >= (kProductBlock - Shape::kGroup) * sizeof(sum));
    join_groups<Shape>(sum, reinterpret_cast<typename Arithmetic::Sum*>(&memory));
    if (group > 0) return;
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

template <class Arithmetic, class Shape, class Finish>
void run_tiles(const typename Arithmetic::Word* rows, const typename Arithmetic::Word* columns,
               const ProductShape& shape, std::size_t width, Finish finish, cudaStream_t stream) {
  const auto tiles = [](std::size_t count, unsigned tile) {
    return static_cast<unsigned>((count + tile - 1) / tile);
  };
  const dim3 grid(tiles(shape.num_rows, Shape::kRows), tiles(shape.num_columns, Shape::kColumns));
  launch(product_kernel<Arithmetic, Shape, Finish>, grid, kProductBlock,
         sizeof(TileMemory<typename Arithmetic::Word, Shape>), stream, rows, columns, shape, width,
         finish);
}

/// The narrowest tile that holds the columns asked for. Of fp32 sums the number of all sites
/// decides about the order: a column comes out the same, bit for bit, whichever are computed with
/// it.
template <class Arithmetic, class Finish>
void run_products(const typename Arithmetic::Word* rows, const typename Arithmetic::Word* columns,
                  const ProductShape& shape, std::size_t width, Finish finish,
                  cudaStream_t stream) {
  const auto run = [&](auto tile) {
    run_tiles<Arithmetic, decltype(tile)>(rows, columns, shape, width, finish, stream);
  };
  const std::size_t deciding = Arithmetic::kExact ? shape.num_columns : shape.num_sites;
  if (deciding <= NarrowTile::kColumns) return run(NarrowTile{});
  if constexpr (!Arithmetic::kExact) {
    if (shape.num_columns <= OrderedTile16::kColumns) return run(OrderedTile16{});
  }
  if (shape.num_columns <= OrderedTile32::kColumns) return run(OrderedTile32{});
  run(OrderedTile64{});
}

}  // namespace moefy::cuda
