#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "cuda/cublas_library.hpp"
#include "cuda/operand.hpp"
#include "cuda/runtime.hpp"
#include "moefy/backend/cublas.hpp"

namespace moefy::cuda {

/// Products by cuBLAS of row-major matrices in device memory. What products() returns is valid
/// until the next call of the same kind.
class Blas {
 public:
  explicit Blas(Stream& stream) : stream_(stream) {}
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  /// Whether there is a cuBLAS; looks for it when first asked.
  bool is_there();
  /// The rows [num_rows, dim], filled up to kBlasRows.
  const float* block_of_rows(const float* rows, std::size_t num_rows, std::size_t dim);
  /// A block of rows [kBlasRows, dim] times columns [kBlasColumns, dim]ᵀ in fp32 without TF32:
  /// [kBlasRows, kBlasColumns].
  const float* products(const float* rows, const float* columns, std::size_t dim);
  /// out [m, n] = a · bᵀ in fp32 without TF32; a [m, k], b [n, k], each of which may be turned;
  /// none of m, n, k is 0. cuBLAS chooses its algorithm by the shape: equal shapes give equal bits.
  void multiply(const Operand<float>& a, const Operand<float>& b, std::size_t m, std::size_t n,
                std::size_t k, float* out, cublas::Compute compute = cublas::fp32_pedantic);
  /// The same as products() of any number of int8 rows on tensor cores, exact: [num_rows,
  /// num_columns] with num_columns a multiple of kBlasInt8Columns, dim one of 16. Null if this
  /// cuBLAS declines to do such a product on this device.
  const std::int32_t* products(const std::int8_t* rows, std::size_t num_rows,
                               const std::int8_t* columns, std::size_t num_columns,
                               std::size_t dim);

 private:
  void start();
  void check(cublas::Status status, const char* action) const;

  Stream& stream_;
  bool looked_ = false;
  bool has_int8_ = true;
  std::optional<cublas::Library> library_;
  cublas::Handle handle_ = nullptr;
  DeviceBuffer<unsigned char> workspace_;
  DeviceBuffer<float> last_rows_;  ///< fewer than kBlasRows, and zeros
  DeviceBuffer<float> fp32_;
  DeviceBuffer<std::int32_t> int32_;
};

}  // namespace moefy::cuda
