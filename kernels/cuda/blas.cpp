#include "cuda/blas.hpp"

#include <limits>

#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

int as_int(std::size_t value) {
  require(value <= std::numeric_limits<int>::max(), "sizes of products fit an int");
  return static_cast<int>(value);
}

struct Types {
  cublas::Type in;
  cublas::Type out;
  cublas::Compute compute;
};

/// out [num_rows, num_columns] = rows [num_rows, dim] · columns [num_columns, dim]ᵀ. cuBLAS counts
/// by columns, so it is asked for the transpose: columns · rowsᵀ.
template <class Out>
cublas::Status multiply(const cublas::Library& library, cublas::Handle handle, const Types& types,
                        const void* rows, std::size_t num_rows, const void* columns,
                        std::size_t num_columns, std::size_t dim, Out* out) {
  const Out one = 1;
  const Out zero = 0;
  return library.gemm(handle, cublas::transposed, cublas::as_it_is, as_int(num_columns),
                      as_int(num_rows), as_int(dim), &one, columns, types.in, as_int(dim), rows,
                      types.in, as_int(dim), &zero, out, types.out, as_int(num_columns),
                      types.compute, cublas::kDefaultAlgorithm);
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
  constexpr Types kTypes{cublas::float32, cublas::float32, cublas::fp32_pedantic};
  check(multiply(*library_, handle_, kTypes, rows, kBlasRows, columns, kBlasColumns, dim, out),
        "fp32 products by cuBLAS");
  return out;
}

const std::int32_t* Blas::products(const std::int8_t* rows, std::size_t num_rows,
                                   const std::int8_t* columns, std::size_t num_columns,
                                   std::size_t dim) {
  if (!has_int8_) return nullptr;
  std::int32_t* const out = int32_.resize(num_rows * num_columns);
  constexpr Types kTypes{cublas::int8, cublas::int32, cublas::int32_sums};
  const cublas::Status status =
      multiply(*library_, handle_, kTypes, rows, num_rows, columns, num_columns, dim, out);
  has_int8_ = status != cublas::not_supported;
  if (!has_int8_) return nullptr;
  check(status, "int8 products by cuBLAS");
  return out;
}

}  // namespace moefy::cuda
