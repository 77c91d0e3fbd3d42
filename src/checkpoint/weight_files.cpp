#include "weight_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "moefy/checkpoint/json_text.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "quote.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr std::uint64_t kIndexLimit = 100'000'000;

std::vector<std::string> file_names(const fs::path& directory, std::string_view extension) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error))
    if (entry->path().extension() == extension) names.push_back(entry->path().filename().string());
  if (error) throw IoError(directory.string(), "list", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

bool file_exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error) && !error;
}

/// A shard must lie in the directory itself: an index must not lead the reader anywhere else.
void check_shard_name(const std::string& name, const std::string& index_path) {
  const bool printable = std::none_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
  const bool plain = printable && name.find_first_of("/\\") == std::string::npos;
  if (!plain || !name.ends_with(".safetensors") || name.starts_with('.'))
    throw InputError(fmt::format("{}: {} is not the name of a safetensors file in this directory",
                                 index_path, quote(name)));
}

WeightFiles read_index(const fs::path& directory) {
  const fs::path path = directory / kIndexName;
  const std::string text = read_text_file(path, kIndexLimit);
  check_json_object(text, path.string());
  const auto json = nlohmann::json::parse(text);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty())
    throw InputError(path.string() + ": no object 'weight_map' from tensors to files");

  WeightFiles files;
  std::set<std::string> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      throw InputError(
          fmt::format("{}: the file of tensor {} is not a string", path.string(), quote(tensor)));
    const auto& name = file.get_ref<const std::string&>();
    if (shards.insert(name).second) check_shard_name(name, path.string());
    files.index.emplace(tensor, name);
  }
  std::vector<std::string> missing;
  for (const std::string& name : shards)
    if (!file_exists(directory / name)) missing.push_back(name);
  if (!missing.empty())
    throw InputError(fmt::format("{}: {} of {} shards are missing: {}; download the model again",
                                 path.string(), missing.size(), shards.size(),
                                 fmt::join(missing, ", ")));
  files.names.assign(shards.begin(), shards.end());
  return files;
}

[[noreturn]] void fail_without_safetensors(const fs::path& directory) {
  const std::string start = directory.string() + ": no *.safetensors file";
  if (!file_names(directory, ".bin").empty())
    throw InputError(start +
                     ", only PyTorch *.bin files, which moefy does not read. Convert them once: "
                     "python -c \"from transformers import AutoModel; "
                     "AutoModel.from_pretrained('OLD', dtype='auto').save_pretrained('NEW')\" "
                     "(use the model's own class, such as AutoModelForCausalLM)");
  if (!file_names(directory, ".gguf").empty())
    throw InputError(start +
                     ", only GGUF files, which moefy does not read. Take the original checkpoint, "
                     "or load the file with transformers (from_pretrained(DIR, gguf_file=FILE)) "
                     "and save it with save_pretrained");
  throw InputError(start + "; a model directory holds config.json and safetensors weights");
}

}  // namespace

WeightFiles find_weight_files(const fs::path& directory) {
  if (file_exists(directory / kIndexName)) {
    WeightFiles files = read_index(directory);
    if (file_exists(directory / kSingleName) &&
        std::find(files.names.begin(), files.names.end(), kSingleName) == files.names.end())
      throw InputError(
          fmt::format("{}: both {} and {}, which does not name it: two checkpoints in one "
                      "directory; remove one",
                      directory.string(), kSingleName, kIndexName));
    return files;
  }
  if (file_exists(directory / kSingleName)) return {{kSingleName}, {}};
  std::vector<std::string> names = file_names(directory, ".safetensors");
  if (names.empty()) fail_without_safetensors(directory);
  if (names.size() > 1)
    throw InputError(fmt::format("{}: {} safetensors files but no {}: {}", directory.string(),
                                 names.size(), kIndexName, fmt::join(names, ", ")));
  return {std::move(names), {}};
}

}  // namespace moefy
