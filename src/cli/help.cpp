#include "help.hpp"

#include <fmt/format.h>

#include "moefy/core/text.hpp"
#include "python_command.hpp"

namespace moefy {

namespace {

constexpr std::size_t kLeftWidth = 26;
constexpr std::size_t kTextWidth = 90;

std::string left_column(const OptionSpec& spec) {
  std::string text = spec.short_name ? fmt::format("-{}, --{}", spec.short_name, spec.name)
                                     : fmt::format("--{}", spec.name);
  if (!spec.value.empty()) text += " " + spec.value;
  return text;
}

std::string right_column(const OptionSpec& spec) {
  std::string text = spec.help;
  if (!spec.choices.empty()) text += fmt::format(": {}", fmt::join(spec.choices, ", "));
  if (!spec.default_value.empty()) text += fmt::format(" ({})", spec.default_value);
  return text;
}

/// The words of `text` in lines of at most kTextWidth, the later ones below the first.
std::string wrapped(const std::string& text) {
  std::string result;
  std::size_t width = 0;
  for (const std::string& word : split_text(text, ' ')) {
    if (width > 0 && width + 1 + word.size() > kTextWidth) {
      result += "\n" + std::string(kLeftWidth + 3, ' ');
      width = 0;
    }
    if (width > 0) result += ' ';
    result += word;
    width += word.size() + 1;
  }
  return result;
}

std::string option_lines(const std::vector<OptionSpec>& specs, bool all) {
  std::string text;
  for (const OptionSpec& spec : specs) {
    const bool shown = spec.shown == Shown::help || (all && spec.shown == Shown::help_all);
    if (shown)
      text +=
          fmt::format("  {:<{}} {}\n", left_column(spec), kLeftWidth, wrapped(right_column(spec)));
  }
  return text;
}

}  // namespace

std::string program_help() {
  std::string text =
      "moefy: turns dense Transformer checkpoints into Mixture-of-Experts ones\n\n"
      "usage: moefy COMMAND MODEL… [options]        moefy COMMAND --help\n\n"
      "MODEL is a directory or the name of a model in the local Hugging Face cache.\n\n";
  for (const CommandSpec& command : all_commands())
    text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  for (const PythonCommand& command : python_commands())
    text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  text +=
      "\n  --version                                   versions of everything\n"
      "  --list architectures|hosts|methods|routers  what there is\n\n"
      "example: moefy split MODEL -o map.h5 --experts 16 && moefy convert MODEL map.h5 -o OUT\n";
  return text;
}

std::string command_help(const CommandSpec& command, const std::vector<OptionSpec>& specs,
                         bool all) {
  std::string text = fmt::format("moefy {}: {}\n\nusage: moefy {} {} [options]\n\n", command.name,
                                 command.summary, command.name, command.positional);
  text += option_lines(specs, all);
  if (!all) text += "  --help-all                 all options\n";
  text += "\nexample: " + command.example + "\n";
  return text;
}

}  // namespace moefy
