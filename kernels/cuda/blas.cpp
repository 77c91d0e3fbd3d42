#include "cuda/blas.hpp"

#include <limits>

#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

int as_int(std::size_t value) {
  require(value <= std::numeric_limits<int>::max(), "sizes of products fit an int");
  return static_cast<int>(value);
}

/// Whether cuBLAS may have no kernel for such a product: versions and devices differ in how they
/// say so. Our own kernel computes the same integers, and a device that has failed fails it, too,
/// so nothing is hidden.
bool is_declined(cublas::Status status) {
  return status == cublas::not_supported || status == cublas::arch_mismatch ||
         status == cublas::invalid_value || status == cublas::internal_error;
}

}  // namespace

Blas::~Blas() {
  if (handle_ != nullptr) library_->destroy(handle_);
}

bool Blas::is_there() {
  if (!looked_) {
    library_ = cublas::load();
    if (library_) start();
    looked_ = true;
  }
  return library_.has_value();
}

void Blas::start() {
  check(library_->create(&handle_), "starting cuBLAS");
  check(library_->set_stream(handle_, stream_.handle()), "giving cuBLAS a stream");
  check(library_->set_workspace(handle_, workspace_.resize(kBlasWorkspace), kBlasWorkspace),
        "giving cuBLAS memory");
}

void Blas::check(cublas::Status status, const char* action) const {
  if (status != cublas::success) fail(action, library_->status_string(status));
}

const float* Blas::block_of_rows(const float* rows, std::size_t num_rows, std::size_t dim) {
  require(num_rows <= kBlasRows, "one block of rows at a time");
  if (num_rows == kBlasRows) return rows;
  const std::size_t size = num_rows * dim;
  float* const block = last_rows_.resize(kBlasRows * dim);
  stream_.copy_on_device(rows, block, size);
  stream_.fill(block + size, 0, kBlasRows * dim - size);
  return block;
}

const float* Blas::products(const float* rows, const float* columns, std::size_t dim) {
  float* const out = fp32_.resize(kBlasRows * kBlasColumns);
  multiply({rows, dim}, {columns, dim}, kBlasRows, kBlasColumns, dim, out);
  return out;
}

void Blas::multiply(const Operand<float>& a, const Operand<float>& b, std::size_t m, std::size_t n,
                    std::size_t k, float* out, cublas::Compute compute) {
  // cuBLAS counts by columns: it sees every matrix turned, and is asked for b · aᵀ.
  const float one = 1;
  const float zero = 0;
  check(library_->gemm(handle_, b.turned ? cublas::as_it_is : cublas::transposed,
                       a.turned ? cublas::transposed : cublas::as_it_is, as_int(n), as_int(m),
                       as_int(k), &one, b.data, cublas::float32, as_int(b.width), a.data,
                       cublas::float32, as_int(a.width), &zero, out, cublas::float32, as_int(n),
                       compute, cublas::kDefaultAlgorithm),
        "fp32 products by cuBLAS");
}

const std::int32_t* Blas::products(const std::int8_t* rows, std::size_t num_rows,
                                   const std::int8_t* columns, std::size_t num_columns,
                                   std::size_t dim) {
  if (!has_int8_) return nullptr;
  std::int32_t* const out = int32_.resize(num_rows * num_columns);
  const std::int32_t one = 1;
  const std::int32_t zero = 0;
  const cublas::Status status = library_->gemm(
      handle_, cublas::transposed, cublas::as_it_is, as_int(num_columns), as_int(num_rows),
      as_int(dim), &one, columns, cublas::int8, as_int(dim), rows, cublas::int8, as_int(dim), &zero,
      out, cublas::int32, as_int(num_columns), cublas::int32_sums, cublas::kDefaultAlgorithm);
  has_int8_ = !is_declined(status);
  if (!has_int8_) return nullptr;
  check(status, "int8 products by cuBLAS");
  return out;
}

}  // namespace moefy::cuda
