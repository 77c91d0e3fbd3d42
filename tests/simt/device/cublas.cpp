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
  kInternalError = 14,
  kNotSupported = 15,
  kTranspose = 1,
  kFloat32 = 0,
  kInt8 = 3,
  kInt32 = 10,
  kComputeFp32 = 68,
  kComputeFp32Pedantic = 69,
  kComputeInt32 = 72,
};

/// A context of the device that was chosen when it was made; no other may be when it is used.
struct Context {
  int device = -1;
  cudaStream_t stream = nullptr;
};

int current_device() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}

struct Sizes {
  int m, n, k, lda, ldb, ldc;
  bool turn_a, turn_b;
};

/// Element (row, column) of a matrix with columns one after another, or of its transpose.
template <class In>
In element(const void* matrix, int ld, bool turned, int row, int column) {
  const int first = turned ? column : row;
  const int second = turned ? row : column;
  return static_cast<const In*>(matrix)[std::size_t(second) * std::size_t(ld) + std::size_t(first)];
}

/// Elements of a matrix that holds [rows, columns], or of its transpose.
std::size_t extent(int rows, int columns, int ld, bool turned) {
  const int length = turned ? columns : rows;
  const int count = turned ? rows : columns;
  return std::size_t(ld) * std::size_t(count - 1) + std::size_t(length);
}

/// C = op(A) op(B) with columns one after another. The sums begin at a term that depends on the
/// shape, as the original's choice of an algorithm does.
template <class In, class Sum>
void multiply(const Sizes& size, const void* a, const void* b, void* c) {
  const int begin = (size.m + 3 * size.n) % size.k;
  for (int column = 0; column < size.n; ++column) {
    Sum* const out = static_cast<Sum*>(c) + std::size_t(column) * std::size_t(size.ldc);
    for (int row = 0; row < size.m; ++row) {
      Sum sum = 0;
      for (int step = 0; step < size.k; ++step) {
        const int l = (begin + step) % size.k;
        sum += Sum{element<In>(a, size.lda, size.turn_a, row, l)} *
               Sum{element<In>(b, size.ldb, size.turn_b, l, column)};
      }
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
  *handle = new Context{current_device()};
  return kSuccess;
}

int cublasDestroy_v2(void* handle) {
  delete static_cast<Context*>(handle);
  return kSuccess;
}

int cublasSetStream_v2(void* handle, cudaStream_t stream) {
  Context& context = *static_cast<Context*>(handle);
  if (simt::device_of(stream) != context.device) return kInvalidValue;
  context.stream = stream;
  return kSuccess;
}

int cublasSetWorkspace_v2(void* handle, void* memory, std::size_t bytes) {
  const cudaStream_t stream = static_cast<Context*>(handle)->stream;
  return simt::is_memory_for(stream, memory, bytes) ? kSuccess : kInvalidValue;
}

int cublasGemmEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                 const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type,
                 int ldb, const void* beta, void* c, int c_type, int ldc, int compute_type,
                 int /*algorithm*/) {
  const Context& context = *static_cast<Context*>(handle);
  if (simt::call_fails("cublasGemmEx") || current_device() != context.device) {
    return kExecutionFailed;
  }
  const cudaStream_t stream = context.stream;
  const bool int8 = a_type == kInt8;
  const bool turn_a = transpose_a == kTranspose;
  const bool turn_b = transpose_b == kTranspose;
  if (int8 && (!turn_a || turn_b)) return kNotSupported;
  const std::size_t in_bytes = int8 ? 1 : sizeof(float);
  if (m < 1 || n < 1 || k < 1 || lda < (turn_a ? k : m) || ldb < (turn_b ? n : k) || ldc < m ||
      !simt::is_memory_for(stream, a, in_bytes * extent(m, k, lda, turn_a)) ||
      !simt::is_memory_for(stream, b, in_bytes * extent(k, n, ldb, turn_b)) ||
      !simt::is_memory_for(stream, c, sizeof(float) * extent(m, n, ldc, false))) {
    return kInvalidValue;
  }
  const Sizes size{m, n, k, lda, ldb, ldc, turn_a, turn_b};
  if (int8) {
    if (simt::call_fails("int8 products of cuBLAS") || b_type != kInt8 || c_type != kInt32 ||
        compute_type != kComputeInt32 || m % 4 != 0 || k % 4 != 0 || lda % 4 != 0 || ldb % 4 != 0 ||
        !is_plain<std::int32_t>(alpha, beta)) {
      return kNotSupported;
    }
    if (simt::call_fails("int8 kernels of cuBLAS")) return kInternalError;
    run_later(stream, [=] { multiply<std::int8_t, std::int32_t>(size, a, b, c); });
  } else {
    if (a_type != kFloat32 || b_type != kFloat32 || c_type != kFloat32 ||
        (compute_type != kComputeFp32Pedantic && compute_type != kComputeFp32) ||
        !is_plain<float>(alpha, beta)) {
      return kNotSupported;
    }
    run_later(stream, [=] { multiply<float, float>(size, a, b, c); });
  }
  return kSuccess;
}

int cublasGetProperty(int property, int* value) {
  constexpr int kVersion[] = {13, 0, 2};
  if (property < 0 || property > 2) return kInvalidValue;
  *value = kVersion[property];
  return kSuccess;
}

const char* cublasGetStatusString(int status) {
  return status == kExecutionFailed ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_OTHER";
}

}  // extern "C"
