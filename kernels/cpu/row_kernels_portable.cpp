#include "cpu/simd_portable.hpp"

#include "cpu/row_kernels.inl"

namespace moefy::cpu {

const RowKernels& portable_row_kernels() {
  static constexpr RowKernels kKernels = row_kernels<Portable>();
  return kKernels;
}

}  // namespace moefy::cpu
