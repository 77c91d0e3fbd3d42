#include "parse.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <nlohmann/json.hpp>

#include "moefy/core/file.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/presets.hpp"

namespace moefy {

namespace {

namespace po = boost::program_options;
using nlohmann::json;

po::options_description boost_options(const std::vector<OptionSpec>& specs) {
  po::options_description description;
  for (const OptionSpec& spec : specs) {
    if (spec.shown == Shown::file_only) continue;
    std::string names = spec.name;
    if (spec.short_name) names += std::string(",") + spec.short_name;
    if (spec.value.empty()) {
      description.add_options()(names.c_str(), "");
    } else {
      description.add_options()(names.c_str(), po::value<std::string>(), "");
    }
  }
  return description;
}

std::vector<std::string> visible_names(const std::vector<OptionSpec>& specs) {
  std::vector<std::string> names;
  for (const OptionSpec& spec : specs)
    if (spec.shown != Shown::file_only) names.push_back("--" + spec.name);
  return names;
}

std::string unknown_option(const std::string& option, const std::vector<OptionSpec>& specs) {
  const std::string name = option.substr(0, option.find('='));
  const std::vector<std::string> near = nearest_names(name, visible_names(specs));
  return "option " + name + " is unknown" +
         (near.empty() ? "; --help-all lists them all"
                       : "; did you mean " + join_text(near, ", ") + "?");
}

/// Values of one JSON object; `where` names it in problems.
void take_json(const std::string& text, const std::string& where, ValueSource source,
               const ParsedCommand& parsed, OptionValues& values) {
  const json object = json::parse(text, nullptr, false);
  if (object.is_discarded() || !object.is_object()) {
    values.add_problem(where + ": expected a JSON object of options");
    return;
  }
  std::vector<std::string> names;
  for (const OptionSpec& spec : parsed.specs) names.push_back(spec.name);
  for (const auto& [name, value] : object.items()) {
    if (!values.knows(name)) {
      values.add_problem(where + ": option '" + name + "' is unknown" + suggestion(name, names));
    } else if (value.is_string()) {
      values.set(name, value.get<std::string>(), source);
    } else if (value.is_boolean() || value.is_number()) {
      values.set(name, value.dump(), source);
    } else {
      values.add_problem(where + ": option '" + name + "' must be a text, a number or true/false");
    }
  }
}

void take_command_line(const std::vector<std::string>& arguments, ParsedCommand& parsed) {
  OptionValues& values = *parsed.values;
  const po::options_description description = boost_options(parsed.specs);
  // No positional description: Boost would have to know names for them.
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  std::vector<std::string> positional;
  try {
    const po::parsed_options result = po::command_line_parser(arguments)
                                          .options(description)
                                          .style(style)
                                          .allow_unregistered()
                                          .run();
    for (const po::option& option : result.options) {
      if (option.position_key != -1) {
        positional.insert(positional.end(), option.value.begin(), option.value.end());
      } else if (option.unregistered) {
        values.add_problem(unknown_option(option.original_tokens.at(0), parsed.specs));
      } else {
        values.set(option.string_key, option.value.empty() ? "true" : option.value.at(0),
                   ValueSource::command_line);
      }
    }
  } catch (const po::error& error) {
    values.add_problem(error.what());
  }
  if (positional.size() > parsed.command.max_positional) {
    values.add_problem("'" + positional[parsed.command.max_positional] +
                       "' is one argument too many; usage: moefy " + parsed.command.name + " " +
                       parsed.command.positional);
  }
  values.set_positional(std::move(positional));
}

}  // namespace

std::vector<std::string> ParsedCommand::config_names() const {
  std::vector<std::string> names;
  for (const OptionSpec& spec : specs) {
    const bool asks = spec.name == "help" || spec.name == "help-all" || spec.name == "config" ||
                      spec.name == "dump-config";
    if (!asks) names.push_back(spec.name);
  }
  return names;
}

void parse_arguments(const std::vector<std::string>& arguments, ParsedCommand& parsed) {
  parsed.specs = parsed.command.options;
  for (OptionSpec& spec : common_options()) parsed.specs.push_back(std::move(spec));
  parsed.values.emplace(parsed.specs);
  OptionValues& values = *parsed.values;
  take_command_line(arguments, parsed);
  parsed.help = values.flag("help");
  parsed.help_all = values.flag("help-all");
  parsed.dump_config = values.flag("dump-config");
  if (parsed.help || parsed.help_all) return;

  if (const std::string& file = values.text("config"); !file.empty())
    take_json(read_text_file(file, 1u << 20), file, ValueSource::file, parsed, values);
  const std::string& preset = values.text("preset");
  const std::vector<std::string> presets = preset_names(parsed.command.name);
  if (std::find(presets.begin(), presets.end(), preset) == presets.end()) {
    values.add_problem("--preset '" + preset + "' is unknown" + suggestion(preset, presets));
  } else {
    take_json(preset_json(parsed.command.name, preset), "preset " + preset, ValueSource::preset,
              parsed, values);
  }
}

}  // namespace moefy
