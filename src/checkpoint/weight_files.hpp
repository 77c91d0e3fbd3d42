#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace moefy {

/// The weight files of a model directory, by name, ascending.
struct WeightFiles {
  std::vector<std::string> names;
  /// Tensor to file, as model.safetensors.index.json says; empty if there is no index.
  std::map<std::string, std::string, std::less<>> index;
};

/// Finds model.safetensors.index.json and its shards, or model.safetensors, or the only
/// *.safetensors. InputError: none (saying what to do with .bin or .gguf files), several without an
/// index, a shard that is missing or not a plain file name, a broken index.
WeightFiles find_weight_files(const std::filesystem::path& directory);

}  // namespace moefy
