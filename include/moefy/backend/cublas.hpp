#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace moefy {

/// The cuBLAS that a CUDA backend would load.
struct CublasFile {
  std::string file;
  std::string version;  ///< "13.0.2"
};
/// DeviceError if MOEFY_CUBLAS names a file that cannot be loaded.
std::optional<CublasFile> find_cublas();
/// The same for `--version`, or why there is none.
std::string describe_cublas();

/// Which products a CUDA backend leaves to cuBLAS, and in what pieces.
namespace cuda {

// Which products go to cuBLAS, from counted work; n rows, k sites, d columns. In the time in which
// an H200-class device reads 4.8 bytes it does 67 fp32 operations, 115 of dp4a, or 1979 int8 ones
// on tensor cores (terabytes and tera-operations a second).
//
// fp32: our tiles read 4nd bytes once and do 2nkd operations, with k rounded up to the width of a
// tile: 16, 32 or a multiple of 64. In one of 16 memory is the limit, in one of 32 arithmetic,
// which takes a seventh longer than memory would; cuBLAS multiplies kBlasColumns, twice as many.
// Above, it should come nearer to the peak. All costs of a buffer go one way, so that a column is
// the same with whichever others it comes.
inline constexpr std::size_t kMostOwnFp32Sites = 32;
// int8: nd bytes and 2nkd operations: with dp4a memory is the limit up to k = 12, on tensor cores
// up to k = 206. cuBLAS writes its products and reads them again (8nk bytes), which is 8k/d of the
// rows: an eighth at k = 64, d = 4096. Sums are exact, so each call may go its own way.
inline constexpr std::size_t kMostOwnInt8Columns = 16;

/// Rows and columns of every fp32 product. One shape for all calls, so that cuBLAS always chooses
/// the same algorithm: a product comes out the same, bit for bit, in whichever part of a layer its
/// row is and with whichever columns.
inline constexpr std::size_t kBlasRows = 2048;
inline constexpr std::size_t kBlasColumns = 64;
/// int8 products need a multiple of this many columns.
inline constexpr std::size_t kBlasInt8Columns = 4;
/// The most int8 products of one call: 64 MiB.
inline constexpr std::size_t kBlasInt8Products = std::size_t{1} << 24;

/// Of a fixed size: cuBLAS' choice of an algorithm may depend on it.
inline constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

inline std::size_t round_up(std::size_t count, std::size_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

/// Bytes that products by cuBLAS take, at the most, of a device that has num_rows rows.
inline std::uint64_t blas_memory(std::size_t num_rows, std::size_t dim, std::size_t num_sites) {
  if (num_sites <= kMostOwnInt8Columns) return 0;
  const std::size_t products = num_rows * round_up(num_sites, kBlasInt8Columns);
  const std::size_t int8 = 4 * std::min(products, kBlasInt8Products);
  const std::size_t fp32 = num_sites > kMostOwnFp32Sites ? 4 * kBlasRows * (dim + kBlasColumns) : 0;
  return kBlasWorkspace + int8 + fp32;
}

}  // namespace cuda

}  // namespace moefy
