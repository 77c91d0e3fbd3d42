#pragma once

#include <string>

namespace moefy {

/// Name of this machine; "unknown" where the system does not tell.
std::string host_name();

}  // namespace moefy
