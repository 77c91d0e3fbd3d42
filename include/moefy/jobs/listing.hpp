#pragma once

#include <string>

namespace moefy {

/// What `moefy --list TOPIC` prints: architectures, hosts, methods, routers. UsageError for others.
std::string listing(const std::string& topic);

}  // namespace moefy
