#pragma once

#include <optional>
#include <string>
#include <vector>

#include "option_table.hpp"

namespace moefy {

/// What the command line asks for, before anything is opened.
struct ParsedCommand {
  CommandSpec command;
  std::vector<OptionSpec> specs;  ///< own and common options; outlives the values
  std::optional<OptionValues> values;
  bool help = false;
  bool help_all = false;
  bool dump_config = false;
  /// Options that belong into a configuration file: all but those that only ask for text.
  std::vector<std::string> config_names() const;
};

/// Parses the arguments behind the command's name. Problems are collected in the values; only an
/// unreadable --config file throws (UsageError).
void parse_arguments(const std::vector<std::string>& arguments, ParsedCommand& parsed);

}  // namespace moefy
