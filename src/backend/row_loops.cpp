#include "row_loops.hpp"

#include "moefy/backend/instruction_set.hpp"
#include "row_loops.inl"

namespace moefy {
namespace {

const RowLoops& widest_row_loops() {
  static constexpr RowLoops kPortable{squared_norm, add_scaled, two_cheapest};
#if defined(__x86_64__)
  if (is_supported(InstructionSet::avx512_vnni)) return row_loops_avx512();
  if (is_supported(InstructionSet::avx2)) return row_loops_avx2();
#endif
  return kPortable;
}

}  // namespace

const RowLoops& row_loops() {
  static const RowLoops& loops = widest_row_loops();
  return loops;
}

}  // namespace moefy
