#pragma once

// Stands in for the part of cooperative groups that moefy uses: waiting for the whole grid.

#include "simt_execution.hpp"

namespace cooperative_groups {

class grid_group {
 public:
  void sync() const { simt::wait_for_grid(); }
};

inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups
