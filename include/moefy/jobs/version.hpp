#pragma once

#include <string>

namespace moefy {

/// "moefy 0.1.0 (git hash)".
std::string version_line();
/// Compiler, libraries and optional parts, one a line.
std::string version_report();

}  // namespace moefy
