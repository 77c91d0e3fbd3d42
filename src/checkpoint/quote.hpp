#pragma once

#include <string>
#include <string_view>

namespace moefy {

/// 'text' for a message about a file that may be hostile: control bytes become '?', and long texts
/// are cut.
std::string quote(std::string_view text);

}  // namespace moefy
