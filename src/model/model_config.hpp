#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace moefy {

/// Typed look-ups in a config.json. Keys are tried in order; those that are missing or null are
/// passed over. An object named `section` (multimodal models keep their text model's settings in
/// one) is asked before the top level.
class ModelConfig {
 public:
  /// `text` has passed check_json_object; `path` names the file in errors.
  ModelConfig(const std::string& text, std::string path, std::string section);
  ~ModelConfig();

  /// InputError if the value is not a whole number from 1 to 2^31 - 1.
  std::optional<std::int64_t> count(std::span<const std::string> keys) const;
  /// InputError if the value is not a text.
  std::optional<std::string> text(std::span<const std::string> keys) const;
  /// JSON pointer ("/text_config/intermediate_size") to the first key that has a value; where none
  /// has one, to the first key at the top level.
  std::string pointer(std::span<const std::string> keys) const;
  const std::string& path() const { return path_; }

 private:
  struct Content;
  std::unique_ptr<Content> content_;
  std::string path_;
  std::string section_;
};

}  // namespace moefy
