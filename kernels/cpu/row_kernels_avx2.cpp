#if defined(__x86_64__)
#include "cpu/simd_avx2.hpp"

#include "cpu/row_kernels.inl"

namespace moefy::cpu {

const RowKernels& avx2_row_kernels() {
  static constexpr RowKernels kKernels = row_kernels<Avx2>();
  return kKernels;
}

}  // namespace moefy::cpu
#endif
