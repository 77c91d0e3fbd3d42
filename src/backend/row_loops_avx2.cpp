#include "row_loops.hpp"
#include "row_loops.inl"

namespace moefy {

const RowLoops& row_loops_avx2() {
  static constexpr RowLoops kLoops{squared_norm, add_scaled, two_cheapest};
  return kLoops;
}

}  // namespace moefy
