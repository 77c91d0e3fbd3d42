#pragma once

#include <string>
#include <string_view>

namespace moefy {

/// Accepts `text` only if it is one JSON object that every reader understands in the same way:
/// UTF-8, no duplicate key at any level, no NUL byte, nesting of at most 64 levels. Throws
/// InputError naming `source` and the place.
void check_json_object(std::string_view text, const std::string& source);

}  // namespace moefy
