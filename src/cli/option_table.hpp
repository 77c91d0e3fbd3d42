#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// How much of the help shows an option: --help, --help-all, or only in --config files (presets).
enum class Shown { help, help_all, file_only };

struct OptionSpec {
  std::string name;   ///< long name without dashes
  std::string value;  ///< placeholder in the help; empty: a flag
  std::string help;
  std::string default_value;  ///< text of the default; empty: none
  Shown shown = Shown::help;
  std::vector<std::string> choices = {};  ///< names, if it takes one of a few
  char short_name = 0;
};

/// Where a value came from; later ones win.
enum class ValueSource { default_value, preset, file, command_line };

/// The resolved options of one command: text by name, and typed access that collects problems
/// instead of throwing, so that all of them are told at once.
class OptionValues {
 public:
  explicit OptionValues(std::span<const OptionSpec> specs);

  /// Sets a value unless one of a stronger source is there. The name must be known.
  void set(const std::string& name, std::string text, ValueSource source);
  void set_positional(std::vector<std::string> values) { positional_ = std::move(values); }
  bool knows(const std::string& name) const;
  bool given(const std::string& name) const;  ///< by anything but the default

  const std::string& text(const std::string& name) const;
  bool flag(const std::string& name) const;
  std::int64_t integer(const std::string& name);
  double real(const std::string& name);
  double seconds(const std::string& name);
  std::uint64_t bytes(const std::string& name);
  /// Positional argument `index`; empty if there are fewer.
  std::string positional(std::size_t index) const;

  void add_problem(std::string problem) { problems_.push_back(std::move(problem)); }
  /// Those of a job's own validation; an option that has a problem already is told once.
  void add_problems(std::vector<std::string> problems);
  std::span<const std::string> problems() const { return problems_; }

  /// JSON object of all options with their resolved values: what --dump-config prints.
  std::string to_json() const;
  /// The same for chosen names only.
  std::string to_json(std::span<const std::string> names) const;

 private:
  struct Value {
    const OptionSpec* spec;
    std::string text;
    ValueSource source = ValueSource::default_value;
  };
  const Value& value(const std::string& name) const;
  std::map<std::string, Value> values_;
  std::vector<std::string> positional_;
  std::vector<std::string> problems_;
};

/// Runs the command on this rank; collective.
using CommandRun = std::function<ExitCode(JobContext& context)>;

struct CommandSpec {
  std::string name;
  std::string positional;  ///< "MODEL -o MAP.h5" for the usage line
  std::size_t max_positional = 1;
  std::string summary;
  std::vector<OptionSpec> options;  ///< its own; common ones are added
  std::string example;
  /// Turns values into a job; problems go to `values`. Nothing is opened yet.
  std::function<CommandRun(OptionValues& values)> prepare;
};

/// Every command, in the order of the help.
std::vector<CommandSpec> all_commands();
/// Options that every command has.
std::vector<OptionSpec> common_options();

CommandSpec split_command();
CommandSpec plan_command();
CommandSpec route_command();
CommandSpec convert_command();
CommandSpec verify_command();
CommandSpec restore_command();
CommandSpec inspect_command();
CommandSpec diff_command();
CommandSpec bench_command();

}  // namespace moefy
