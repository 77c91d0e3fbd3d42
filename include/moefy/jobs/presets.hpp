#pragma once

#include <string>
#include <vector>

namespace moefy {

/// Names of the presets of a command; "default" is always one of them.
std::vector<std::string> preset_names(const std::string& command);

/// A preset of a command: a JSON object of its options (configs/presets/COMMAND.PRESET.json).
std::string preset_json(const std::string& command, const std::string& preset);

}  // namespace moefy
