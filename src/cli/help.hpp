#pragma once

#include <string>
#include <vector>

#include "option_table.hpp"

namespace moefy {

/// The program's own help: commands and global options.
std::string program_help();
/// One screen for a command, or with `all` everything.
std::string command_help(const CommandSpec& command, const std::vector<OptionSpec>& specs,
                         bool all);

}  // namespace moefy
