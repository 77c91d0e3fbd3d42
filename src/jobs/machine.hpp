#pragma once

#include <cstdint>
#include <string>

namespace moefy {

/// Bytes, from /proc/meminfo; zeros where it cannot be read.
struct MemoryInfo {
  std::uint64_t total = 0;
  std::uint64_t available = 0;
};
MemoryInfo read_memory_info();
/// Largest resident size of this process so far (VmHWM), bytes.
std::uint64_t peak_memory();
/// "AMD EPYC 9654 …", from /proc/cpuinfo.
std::string cpu_model();
/// UTC, ISO 8601.
std::string utc_time();

}  // namespace moefy
