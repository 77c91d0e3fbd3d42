#pragma once

#include <string>
#include <string_view>

namespace moefy {

/// The text with U+FFFD in place of every byte that is no UTF-8: file names may be any bytes, JSON
/// and HDF5 texts may not.
std::string valid_utf8(std::string_view text);

}  // namespace moefy
