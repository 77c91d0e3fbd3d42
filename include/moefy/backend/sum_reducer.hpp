#pragma once

#include <cstdint>
#include <span>

namespace moefy {

/// Adds up integers that lie with the members of a group, from where each member's backend computes
/// to where the leader's does. One reduction at a time, begun by every member with as many values.
/// For the thread that works. All functions throw CommError, DeviceError.
class SumReducer {
 public:
  virtual ~SumReducer() = default;
  /// Begins a reduction and returns at once. `values` must be complete, stay until the reduction is
  /// done, and then hold the totals on the leader and what they held on the others.
  virtual void begin(std::span<std::int64_t> values) = 0;
  /// Drives this member's part of it and tells whether it is done. CommError, too, if that takes
  /// longer than a group may be silent.
  virtual bool done() = 0;
  /// Until done(). Throws Interrupted if the work is stopped meanwhile.
  virtual void wait() = 0;
};

}  // namespace moefy
