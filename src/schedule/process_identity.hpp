#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace moefy {

/// What tells a process from all others, also from a later one with the same number.
struct ProcessIdentity {
  std::string host;
  std::string boot;  ///< boot id and process namespace: containers may share the host's name
  std::int64_t pid = 0;
  std::uint64_t start = 0;  ///< clock ticks since boot

  static ProcessIdentity own();
  /// From the text of a lock file; empty if it is none.
  static std::optional<ProcessIdentity> parse(const std::string& text);

  std::string text() const;
  std::string describe() const;
  bool same_host_as(const ProcessIdentity& other) const;
  /// Only for a process of this host.
  bool is_running() const;
};

}  // namespace moefy
