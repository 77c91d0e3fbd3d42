#include "moefy/jobs/presets.hpp"

#include <string_view>
#include <utility>

#include "embedded_presets.hpp"

namespace moefy {

namespace {

constexpr std::string_view kDefault = "default";
constexpr std::string_view kSuffix = ".json";

}  // namespace

std::vector<std::string> preset_names(const std::string& command) {
  std::vector<std::string> names{std::string(kDefault)};
  const std::string prefix = command + ".";
  for (const auto& [file, text] : embedded_presets()) {
    if (!file.starts_with(prefix)) continue;
    names.emplace_back(file.substr(prefix.size(), file.size() - prefix.size() - kSuffix.size()));
  }
  return names;
}

std::string preset_json(const std::string& command, const std::string& preset) {
  for (const auto& [file, text] : embedded_presets())
    if (file == command + "." + preset + std::string(kSuffix)) return std::string(text);
  return "{}";
}

}  // namespace moefy
