#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moefy/core/error.hpp"
#include "moefy/schedule/journal.hpp"

namespace moefy {
namespace {

using Json = nlohmann::json;

/// "/options/seed" as "options.seed".
std::string key_of(const std::string& pointer) {
  std::string key = pointer.substr(pointer.empty() ? 0 : 1);
  for (char& letter : key) {
    if (letter == '/') letter = '.';
  }
  return key;
}

/// Empty objects and arrays stand for themselves; everything else is taken apart to its leaves.
std::map<std::string, std::string> leaves(const Json& object) {
  std::map<std::string, std::string> result;
  if (object.empty()) return result;
  const Json flat = object.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    result[key_of(pointer)] = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  return result;
}

Json parse_object(const std::string& text, const char* which) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) {
    throw InputError(fmt::format("the {} fingerprint is not a JSON object", which));
  }
  return json;
}

}  // namespace

std::vector<std::string> fingerprint_differences(const std::string& old_json,
                                                 const std::string& new_json) {
  const auto before = leaves(parse_object(old_json, "journal's"));
  const auto now = leaves(parse_object(new_json, "new"));
  std::vector<std::string> lines;
  for (const auto& [key, value] : before) {
    const auto found = now.find(key);
    if (found == now.end()) {
      lines.push_back(fmt::format("{}: journal has {}, now nothing", key, value));
    } else if (found->second != value) {
      lines.push_back(fmt::format("{}: journal has {}, now {}", key, value, found->second));
    }
  }
  for (const auto& [key, value] : now) {
    if (!before.contains(key)) {
      lines.push_back(fmt::format("{}: journal has nothing, now {}", key, value));
    }
  }
  return lines;
}

}  // namespace moefy
