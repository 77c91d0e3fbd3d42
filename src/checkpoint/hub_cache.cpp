#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"
#include "quote.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "models--";

/// The folder that huggingface_hub would use, by the same variables in the same order.
fs::path hub_cache() {
  const auto variable = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (const auto path = variable("HF_HUB_CACHE"); !path.empty()) return path;
  if (const auto path = variable("HF_HOME"); !path.empty()) return path / "hub";
  if (const auto path = variable("XDG_CACHE_HOME"); !path.empty())
    return path / "huggingface" / "hub";
  return variable("HOME") / ".cache" / "huggingface" / "hub";
}

/// `org/name` or `name` of the letters that the hub allows.
bool is_model_name(const std::string& model) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return !model.empty() && std::all_of(model.begin(), model.end(), allowed) &&
         std::count(model.begin(), model.end(), '/') <= 1 && !model.starts_with('/') &&
         !model.ends_with('/') && model.find("..") == std::string::npos && !model.starts_with('.');
}

std::string folder_name(const std::string& model) {
  const auto slash = model.find('/');
  if (slash == std::string::npos) return fmt::format("{}{}", kPrefix, model);
  return fmt::format("{}{}--{}", kPrefix, model.substr(0, slash), model.substr(slash + 1));
}

std::vector<std::string> cached_models(const fs::path& cache) {
  std::vector<std::string> models;
  std::error_code error;
  for (fs::directory_iterator entry(cache, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    const std::string model = name.substr(kPrefix.size());
    const auto dashes = model.find("--");
    models.push_back(dashes == std::string::npos
                         ? model
                         : model.substr(0, dashes) + "/" + model.substr(dashes + 2));
  }
  std::sort(models.begin(), models.end());
  return models;
}

fs::path snapshot_of_main(const fs::path& folder) {
  const fs::path reference = folder / "refs" / "main";
  std::string hash = read_text_file(reference, 1024);
  while (!hash.empty() && (hash.back() == '\n' || hash.back() == '\r')) hash.pop_back();
  const bool plain = !hash.empty() && std::all_of(hash.begin(), hash.end(),
                                                  [](unsigned char c) { return std::isalnum(c); });
  if (!plain) throw InputError(reference.string() + ": not the name of a snapshot");
  return folder / "snapshots" / hash;
}

}  // namespace

fs::path resolve_model(const std::string& model) {
  std::error_code error;
  if (fs::is_directory(model, error)) return model;
  if (fs::exists(model, error))
    throw UsageError(fmt::format(
        "{}: MODEL is a directory with config.json and safetensors files, this is a file",
        quote(model)));
  if (!is_model_name(model))
    throw UsageError(quote(model) + ": no such directory, and not the name of a model");

  const fs::path cache = hub_cache();
  const fs::path folder = cache / folder_name(model);
  if (fs::exists(folder / "refs" / "main", error)) {
    fs::path snapshot = snapshot_of_main(folder);
    if (fs::is_directory(snapshot, error)) return snapshot;
  }
  const auto cached = cached_models(cache);
  const std::string known =
      cached.empty() ? "" : fmt::format("; models in the cache: {}", fmt::join(cached, ", "));
  throw UsageError(fmt::format(
      "{0}: no such directory, and no model of that name in {1}. Download it with `hf download {0}`"
      " (package huggingface_hub){2}",
      model, cache.string(), known));
}

}  // namespace moefy
