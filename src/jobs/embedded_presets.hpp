#pragma once

#include <span>
#include <string_view>
#include <utility>

namespace moefy {

/// configs/presets/COMMAND.PRESET.json: file name and text, built in by CMake.
std::span<const std::pair<std::string_view, std::string_view>> embedded_presets();

}  // namespace moefy
