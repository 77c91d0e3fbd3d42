#include "model_config.hpp"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "moefy/core/error.hpp"

namespace moefy {

struct ModelConfig::Content {
  nlohmann::json json;

  struct Found {
    const nlohmann::json* value = nullptr;
    std::string key;
    bool in_section = false;
  };
  Found find(std::span<const std::string> keys, const std::string& section) const {
    const auto inner = json.find(section);
    for (const nlohmann::json* object : {inner != json.end() ? &*inner : nullptr, &json}) {
      if (!object || !object->is_object()) continue;
      for (const std::string& key : keys)
        if (const auto found = object->find(key); found != object->end() && !found->is_null())
          return {&*found, key, object != &json};
    }
    return {};
  }
};

ModelConfig::ModelConfig(const std::string& text, std::string path, std::string section)
    : content_(std::make_unique<Content>(Content{nlohmann::json::parse(text)})),
      path_(std::move(path)),
      section_(std::move(section)) {}

ModelConfig::~ModelConfig() = default;

std::string ModelConfig::pointer(std::span<const std::string> keys) const {
  const auto found = content_->find(keys, section_);
  if (!found.value) return "/" + keys.front();
  return found.in_section ? "/" + section_ + "/" + found.key : "/" + found.key;
}

std::optional<std::int64_t> ModelConfig::count(std::span<const std::string> keys) const {
  const auto found = content_->find(keys, section_);
  if (!found.value) return std::nullopt;
  constexpr std::uint64_t kLargest = std::numeric_limits<std::int32_t>::max();
  const bool valid = found.value->is_number_unsigned();
  const std::uint64_t value = valid ? found.value->get<std::uint64_t>() : 0;
  if (value < 1 || value > kLargest)
    throw InputError(
        fmt::format("{}: '{}' must be a whole number from 1 to {}", path_, found.key, kLargest));
  return static_cast<std::int64_t>(value);
}

std::optional<std::string> ModelConfig::text(std::span<const std::string> keys) const {
  const auto found = content_->find(keys, section_);
  if (!found.value) return std::nullopt;
  if (!found.value->is_string())
    throw InputError(fmt::format("{}: '{}' must be a text", path_, found.key));
  return found.value->get<std::string>();
}

}  // namespace moefy
