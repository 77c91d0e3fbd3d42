#if defined(__x86_64__)
#include "cpu/simd_avx512.hpp"

#include "cpu/row_kernels.inl"

namespace moefy::cpu {

const RowKernels& avx512_row_kernels() {
  static constexpr RowKernels kKernels = row_kernels<Avx512>();
  return kKernels;
}

}  // namespace moefy::cpu
#endif
