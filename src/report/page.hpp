#pragma once

#include <string_view>

namespace moefy {

/// The fixed parts of the HTML report: its style sheet and the script that draws the charts from
/// the JSON in the page.
extern const std::string_view kPageStyle;
extern const std::string_view kPageScript;

}  // namespace moefy
