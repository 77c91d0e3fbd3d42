#include "tokenizer.hpp"

#include <fmt/format.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "moefy/core/error.hpp"

namespace moefy::gguf {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

enum TokenType : std::int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

/// Patterns that cut text into words, and llama.cpp's names for them.
constexpr std::array<std::pair<const char*, const char*>, 2> kPatterns{{
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "llama-bpe"},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "qwen2"},
}};

json read_json(const fs::path& path) {
  if (!fs::exists(path)) return json::object();
  json value = json::parse(read_text_file(path, std::uint64_t{1} << 28), nullptr, false);
  if (!value.is_object()) throw InputError(fmt::format("{}: not a JSON object", path.string()));
  return value;
}

/// llama.cpp's name of a pre-tokenizer; nothing if it has none that is known here.
std::optional<std::string> name_of_pre_tokenizer(const json& pre) {
  if (!pre.is_object()) return std::nullopt;
  const std::string type = pre.value("type", "");
  if (type == "ByteLevel")
    return pre.value("use_regex", true) ? std::optional<std::string>("gpt-2") : std::nullopt;
  if (type != "Sequence" || !pre.contains("pretokenizers")) return std::nullopt;
  const json& steps = pre["pretokenizers"];
  if (!steps.is_array() || steps.size() != 2 || steps[1].value("type", "") != "ByteLevel")
    return std::nullopt;
  const bool regex_after = steps[1].value("use_regex", true);
  if (steps[0].value("type", "") == "Digits" && steps[0].value("individual_digits", false) &&
      regex_after)
    return "smollm";
  if (steps[0].value("type", "") != "Split" || regex_after) return std::nullopt;
  const json pattern = steps[0].value("pattern", json::object());
  const std::string regex = pattern.value("Regex", "");
  for (const auto& [known, name] : kPatterns)
    if (regex == known) return name;
  return std::nullopt;
}

/// A token that tokenizer_config.json names, as text or as an object.
std::optional<std::string> named_token(const json& config, const char* name) {
  if (!config.contains(name)) return std::nullopt;
  const json& value = config[name];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content")) return value["content"].get<std::string>();
  return std::nullopt;
}

/// Whether a text begins with the beginning-of-text token.
bool adds_bos(const json& tokenizer, const json& config) {
  if (config.contains("add_bos_token") && config["add_bos_token"].is_boolean())
    return config["add_bos_token"];
  const json processor = tokenizer.value("post_processor", json::object());
  if (!processor.is_object() || processor.value("type", "") != "TemplateProcessing") return false;
  const json single = processor.value("single", json::array());
  return !single.empty() && single[0].contains("SpecialToken");
}

std::string merge_text(const json& merge) {
  if (merge.is_string()) return merge;
  return merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>();
}

/// Tokens by id, with their types.
struct Vocabulary {
  Vocabulary(const json& tokenizer, std::int64_t size, const std::string& place)
      : token(static_cast<std::size_t>(size)), type(token.size(), kUnused) {
    for (const auto& [text, id] : tokenizer.at("model").at("vocab").items())
      set(text, id, kNormal, place);
    for (const json& added : tokenizer.value("added_tokens", json::array()))
      set(added.at("content"), added.at("id"),
          added.value("special", false) ? kControl : kUserDefined, place);
    for (std::size_t id = 0; id < token.size(); ++id)
      if (type[id] == kUnused) token[id] = fmt::format("[PAD{}]", id);
  }

  void set(const std::string& text, std::int64_t id, TokenType kind, const std::string& place) {
    if (id < 0 || id >= static_cast<std::int64_t>(token.size()))
      throw InputError(fmt::format("{}: token '{}' has id {}, the embedding has {} rows", place,
                                   text, id, token.size()));
    token[static_cast<std::size_t>(id)] = text;
    type[static_cast<std::size_t>(id)] = kind;
    ids[text] = id;
  }

  std::vector<std::string> token;
  std::vector<std::int32_t> type;
  std::map<std::string, std::int64_t> ids;
};

void add_special_tokens(Metadata& metadata, const json& config, const Vocabulary& vocabulary) {
  for (const auto& [name, key] : {std::pair{"bos_token", "tokenizer.ggml.bos_token_id"},
                                  {"eos_token", "tokenizer.ggml.eos_token_id"},
                                  {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                  {"pad_token", "tokenizer.ggml.padding_token_id"}}) {
    const std::optional<std::string> token = named_token(config, name);
    if (!token) continue;
    const auto id = vocabulary.ids.find(*token);
    if (id != vocabulary.ids.end()) metadata.add(key, static_cast<std::uint32_t>(id->second));
  }
}

void add_chat_template(Metadata& metadata, const fs::path& directory, const json& config) {
  const fs::path file = directory / "chat_template.jinja";
  if (fs::exists(file))
    metadata.add("tokenizer.chat_template", read_text_file(file));
  else if (config.contains("chat_template") && config["chat_template"].is_string())
    metadata.add("tokenizer.chat_template", config["chat_template"].get<std::string>());
}

}  // namespace

void add_tokenizer(Metadata& metadata, const fs::path& directory, std::int64_t vocab_size) {
  const fs::path path = directory / "tokenizer.json";
  if (!fs::exists(path))
    throw InputError(
        fmt::format("{}: no tokenizer.json, which the GGUF file needs", directory.string()));
  const json tokenizer = read_json(path);
  const json config = read_json(directory / "tokenizer_config.json");
  try {
    const json& model = tokenizer.at("model");
    if (model.value("type", "") != "BPE" || model.value("byte_fallback", false))
      throw InputError(
          fmt::format("{}: a tokenizer of kind {}; only byte-level BPE can be written to GGUF here",
                      path.string(),
                      model.value("byte_fallback", false) ? "SentencePiece BPE"
                                                          : model.value("type", "unknown")));
    const auto pre = name_of_pre_tokenizer(tokenizer.value("pre_tokenizer", json::object()));
    if (!pre)
      throw InputError(fmt::format("{}: llama.cpp has no known name for its pre-tokenizer {}",
                                   path.string(),
                                   tokenizer.value("pre_tokenizer", json::object()).dump()));
    const Vocabulary vocabulary(tokenizer, vocab_size, path.string());
    std::vector<std::string> merges;
    for (const json& merge : model.at("merges")) merges.push_back(merge_text(merge));
    metadata.add("tokenizer.ggml.model", "gpt2");
    metadata.add("tokenizer.ggml.pre", *pre);
    metadata.add("tokenizer.ggml.tokens", std::span<const std::string>(vocabulary.token));
    metadata.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(vocabulary.type));
    metadata.add("tokenizer.ggml.merges", std::span<const std::string>(merges));
    add_special_tokens(metadata, config, vocabulary);
    metadata.add("tokenizer.ggml.add_bos_token", adds_bos(tokenizer, config));
    add_chat_template(metadata, directory, config);
  } catch (const json::exception& error) {
    throw InputError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

}  // namespace moefy::gguf
