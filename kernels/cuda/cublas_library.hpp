#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <optional>
#include <string>

/// The part of cuBLAS that moefy uses, found when the program runs: a machine without it runs moefy
/// all the same. Types and values as in cublas_api.h of version 12 and later.
namespace moefy::cublas {

using Handle = void*;

/// What get_property is asked for.
enum Property : int { major_version = 0, minor_version = 1, patch_level = 2 };
/// What calls return; all other values are errors, too.
enum Status : int {
  success = 0,
  invalid_value = 7,
  arch_mismatch = 8,
  internal_error = 14,
  not_supported = 15
};
enum Operation : int { as_it_is = 0, transposed = 1 };
enum Type : int { float32 = 0, int8 = 3, int32 = 10 };
enum Compute : int {
  fp32 = 68,
  fp32_pedantic = 69,  ///< no TF32, whatever the environment says
  int32_sums = 72
};
inline constexpr int kDefaultAlgorithm = -1;

/// Each named after its function: `create` is cublasCreate_v2.
struct Library {
  std::string file;
  Status (*create)(Handle* handle);
  Status (*destroy)(Handle handle);
  Status (*set_stream)(Handle handle, cudaStream_t stream);
  Status (*set_workspace)(Handle handle, void* memory, std::size_t bytes);
  Status (*gemm)(Handle handle, Operation a_operation, Operation b_operation, int m, int n, int k,
                 const void* alpha, const void* a, Type a_type, int lda, const void* b, Type b_type,
                 int ldb, const void* beta, void* c, Type c_type, int ldc, Compute compute,
                 int algorithm);
  const char* (*status_string)(Status status);
  Status (*get_property)(Property property, int* value);
};

/// From the file that the variable MOEFY_CUBLAS names ("off": from nowhere), else where the loader
/// looks, in a toolkit, and in the wheel nvidia-cublas of the active Python environment. Never
/// unloaded. DeviceError if MOEFY_CUBLAS names a file that cannot be loaded.
std::optional<Library> load();

}  // namespace moefy::cublas
