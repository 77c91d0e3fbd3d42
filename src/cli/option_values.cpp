#include <algorithm>
#include <nlohmann/json.hpp>

#include "moefy/core/text.hpp"
#include "moefy/core/utf8.hpp"
#include "option_table.hpp"

namespace moefy {

namespace {

/// Values use hyphens, underscores are accepted.
std::string with_hyphens(std::string text) {
  for (char& c : text)
    if (c == '_') c = '-';
  return text;
}

}  // namespace

OptionValues::OptionValues(std::span<const OptionSpec> specs) {
  for (const OptionSpec& spec : specs)
    values_.emplace(spec.name, Value{&spec, spec.value.empty() ? "false" : spec.default_value});
}

void OptionValues::set(const std::string& name, std::string text, ValueSource source) {
  Value& value = values_.at(name);
  if (source < value.source) return;
  if (!value.spec->choices.empty()) {
    text = with_hyphens(std::move(text));
    const std::vector<std::string>& choices = value.spec->choices;
    if (std::find(choices.begin(), choices.end(), text) == choices.end())
      add_problem("--" + name + " '" + text + "' is unknown" + suggestion(text, choices));
  }
  value.text = std::move(text);
  value.source = source;
}

bool OptionValues::knows(const std::string& name) const { return values_.contains(name); }

bool OptionValues::given(const std::string& name) const {
  return value(name).source != ValueSource::default_value;
}

const OptionValues::Value& OptionValues::value(const std::string& name) const {
  const auto found = values_.find(name);
  require(found != values_.end(), "option --" + name + " is not in the table");
  return found->second;
}

const std::string& OptionValues::text(const std::string& name) const { return value(name).text; }

bool OptionValues::flag(const std::string& name) const { return text(name) == "true"; }

std::int64_t OptionValues::integer(const std::string& name) {
  if (const auto parsed = parse_integer(text(name))) return *parsed;
  if (given(name)) add_problem("--" + name + " '" + text(name) + "': expected a whole number");
  return 0;
}

double OptionValues::real(const std::string& name) {
  if (const auto parsed = parse_real(text(name))) return *parsed;
  if (given(name)) add_problem("--" + name + " '" + text(name) + "': expected a number");
  return 0;
}

double OptionValues::seconds(const std::string& name) {
  if (const auto parsed = parse_duration(text(name))) return *parsed;
  if (given(name))
    add_problem("--" + name + " '" + text(name) + "': expected a time such as 90s, 15m or 2h");
  return 0;
}

std::uint64_t OptionValues::bytes(const std::string& name) {
  if (const auto parsed = parse_bytes(text(name))) return *parsed;
  if (given(name))
    add_problem("--" + name + " '" + text(name) + "': expected a size such as 500M or 2GiB");
  return 0;
}

std::string OptionValues::positional(std::size_t index) const {
  return index < positional_.size() ? positional_[index] : std::string();
}

void OptionValues::add_problems(std::vector<std::string> problems) {
  const auto option_of = [](const std::string& problem) {
    return problem.substr(0, problem.find(' '));
  };
  for (std::string& problem : problems) {
    const std::string option = option_of(problem);
    const bool told = std::any_of(problems_.begin(), problems_.end(),
                                  [&](const std::string& old) { return option_of(old) == option; });
    if (!told || !option.starts_with("--")) problems_.push_back(std::move(problem));
  }
}

std::string OptionValues::to_json() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : values_) names.push_back(name);
  return to_json(names);
}

std::string OptionValues::to_json(std::span<const std::string> names) const {
  nlohmann::json object = nlohmann::json::object();
  for (const std::string& name : names) {
    const Value& found = value(name);
    if (found.spec->value.empty()) {
      object[name] = found.text == "true";
    } else if (!found.text.empty()) {
      object[name] = valid_utf8(found.text);
    }
  }
  return object.dump(2);
}

}  // namespace moefy
