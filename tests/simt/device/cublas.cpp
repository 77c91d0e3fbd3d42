// Stands in for cuBLAS where devices are simulated: the calls that moefy makes. Stricter than the
// original about memory and shapes, and as late with its results as a kernel.
#include <cstdint>

#include "cuda_runtime.h"
#include "simt.hpp"

namespace {

enum : int {
  kSuccess = 0,
  kInvalidValue = 7,
  kExecutionFailed = 13,
  kNotSupported = 15,
  kNoTranspose = 0,
  kTranspose = 1,
  kFloat32 = 0,
  kInt8 = 3,
  kInt32 = 10,
  kComputeFp32Pedantic = 69,
  kComputeInt32 = 72,
};

struct Context {
  cudaStream_t stream = nullptr;
  int fp32_m = 0;  ///< of the first fp32 product: another shape could get another algorithm
  int fp32_n = 0;
};

struct Sizes {
  int m, n, k, lda, ldb, ldc;
};

/// C = Aᵀ B with columns one after another.
template <class In, class Sum>
void multiply(const Sizes& size, const void* a, const void* b, void* c) {
  for (int column = 0; column < size.n; ++column) {
    const In* const right = static_cast<const In*>(b) + std::size_t(column) * std::size_t(size.ldb);
    Sum* const out = static_cast<Sum*>(c) + std::size_t(column) * std::size_t(size.ldc);
    for (int row = 0; row < size.m; ++row) {
      const In* const left = static_cast<const In*>(a) + std::size_t(row) * std::size_t(size.lda);
      Sum sum = 0;
      for (int l = 0; l < size.k; ++l) sum += Sum{left[l]} * Sum{right[l]};
      out[row] = sum;
    }
  }
}

template <class Scalar>
bool is_plain(const void* alpha, const void* beta) {
  return *static_cast<const Scalar*>(alpha) == 1 && *static_cast<const Scalar*>(beta) == 0;
}

template <class Work>
void run_later(cudaStream_t stream, Work work) {
  simt::add_to_stream(stream, [=] {
    work();
    return true;
  });
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  if (simt::call_fails("cublasCreate")) return kExecutionFailed;
  *handle = new Context;
  return kSuccess;
}

int cublasDestroy_v2(void* handle) {
  delete static_cast<Context*>(handle);
  return kSuccess;
}

int cublasSetStream_v2(void* handle, cudaStream_t stream) {
  static_cast<Context*>(handle)->stream = stream;
  return kSuccess;
}

int cublasSetWorkspace_v2(void* /*handle*/, void* memory, std::size_t bytes) {
  return simt::is_device_memory(memory, bytes) ? kSuccess : kInvalidValue;
}

int cublasGemmEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                 const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type,
                 int ldb, const void* beta, void* c, int c_type, int ldc, int compute_type,
                 int /*algorithm*/) {
  if (simt::call_fails("cublasGemmEx")) return kExecutionFailed;
  if (transpose_a != kTranspose || transpose_b != kNoTranspose) return kNotSupported;
  const bool int8 = a_type == kInt8;
  const std::size_t in_bytes = int8 ? 1 : sizeof(float);
  if (lda < k || ldb < k || ldc < m ||
      !simt::is_device_memory(a, in_bytes * std::size_t(lda) * std::size_t(m)) ||
      !simt::is_device_memory(b, in_bytes * std::size_t(ldb) * std::size_t(n)) ||
      !simt::is_device_memory(c, sizeof(float) * std::size_t(ldc) * std::size_t(n))) {
    return kInvalidValue;
  }
  const Sizes size{m, n, k, lda, ldb, ldc};
  Context& context = *static_cast<Context*>(handle);
  const cudaStream_t stream = context.stream;
  if (int8) {
    if (simt::call_fails("int8 products of cuBLAS") || b_type != kInt8 || c_type != kInt32 ||
        compute_type != kComputeInt32 || m % 4 != 0 || k % 4 != 0 || lda % 4 != 0 || ldb % 4 != 0 ||
        !is_plain<std::int32_t>(alpha, beta)) {
      return kNotSupported;
    }
    run_later(stream, [=] { multiply<std::int8_t, std::int32_t>(size, a, b, c); });
  } else {
    if (a_type != kFloat32 || b_type != kFloat32 || c_type != kFloat32 ||
        compute_type != kComputeFp32Pedantic || !is_plain<float>(alpha, beta)) {
      return kNotSupported;
    }
    if (context.fp32_m == 0) {
      context.fp32_m = m;
      context.fp32_n = n;
    }
    if (context.fp32_m != m || context.fp32_n != n) return kNotSupported;
    run_later(stream, [=] { multiply<float, float>(size, a, b, c); });
  }
  return kSuccess;
}

const char* cublasGetStatusString(int status) {
  return status == kExecutionFailed ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_OTHER";
}

}  // extern "C"
