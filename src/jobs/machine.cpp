#include "machine.hpp"

#include <array>
#include <ctime>
#include <fstream>
#include <sstream>

namespace moefy {

namespace {

/// The number behind `key` in a file of "key: value kB" lines, in bytes.
std::uint64_t kilobytes_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    std::istringstream fields(line.substr(key.size()));
    std::uint64_t value = 0;
    fields >> value;
    return value * 1024;
  }
  return 0;
}

}  // namespace

MemoryInfo read_memory_info() {
  return {kilobytes_of("/proc/meminfo", "MemTotal:"),
          kilobytes_of("/proc/meminfo", "MemAvailable:")};
}

std::uint64_t peak_memory() { return kilobytes_of("/proc/self/status", "VmHWM:"); }

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

}  // namespace moefy
