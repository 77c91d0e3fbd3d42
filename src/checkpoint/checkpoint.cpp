#include "moefy/checkpoint/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "moefy/checkpoint/json_text.hpp"
#include "moefy/checkpoint/safetensors_file.hpp"
#include "moefy/core/error.hpp"
#include "quantized.hpp"
#include "quote.hpp"
#include "weight_files.hpp"

namespace moefy {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kConfigLimit = 16'000'000;

/// The index and the shards must say the same in both directions.
void check_index(const WeightFiles& files, std::span<const TensorInfo> tensors,
                 const fs::path& directory) {
  if (files.index.empty()) return;
  for (const TensorInfo& tensor : tensors) {
    const std::string& shard = files.names[tensor.shard];
    const auto entry = files.index.find(tensor.name);
    if (entry == files.index.end())
      throw InputError(fmt::format("{}: tensor {} of {} is not in the index", directory.string(),
                                   quote(tensor.name), shard));
    if (entry->second != shard)
      throw InputError(fmt::format("{}: tensor {} is in {}, but the index says {}",
                                   directory.string(), quote(tensor.name), shard, entry->second));
  }
  // No name twice (a second one would be in the wrong shard), so equal counts mean equal sets.
  if (tensors.size() == files.index.size()) return;
  for (const auto& [name, shard] : files.index) {
    const auto found = std::lower_bound(
        tensors.begin(), tensors.end(), name,
        [](const TensorInfo& tensor, const std::string& wanted) { return tensor.name < wanted; });
    if (found == tensors.end() || found->name != name)
      throw InputError(fmt::format("{}: the index says that tensor {} is in {}, but it is not",
                                   directory.string(), quote(name), shard));
  }
}

void check_directory(const fs::path& directory) {
  std::error_code error;
  const auto status = fs::status(directory, error);
  if (!fs::exists(status)) throw InputError(directory.string() + ": no such directory");
  if (!fs::is_directory(status))
    throw InputError(directory.string() +
                     ": not a directory; give the directory that holds config.json");
  if (!fs::exists(directory / "config.json", error))
    throw InputError(directory.string() + ": no config.json; is this a Hugging Face model?");
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& directory) {
  check_directory(directory);
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  checkpoint.config_text_ = read_text_file(directory / "config.json", kConfigLimit);
  check_json_object(checkpoint.config_text_, (directory / "config.json").string());

  const WeightFiles files = find_weight_files(directory);
  for (const std::string& name : files.names) {
    const auto file = std::make_shared<SafetensorsFile>(directory / name);
    for (TensorInfo tensor : file->tensors()) {
      tensor.shard = checkpoint.files_.size();
      checkpoint.tensors_.push_back(std::move(tensor));
    }
    checkpoint.shards_.push_back({name, file->size(), file->header(), file->metadata()});
    checkpoint.files_.push_back(file);
  }
  std::sort(checkpoint.tensors_.begin(), checkpoint.tensors_.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  check_index(files, checkpoint.tensors_, directory);
  refuse_quantized(checkpoint.config_text_, checkpoint.tensors_, directory.string());
  return checkpoint;
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorInfo& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const TensorInfo& Checkpoint::at(std::string_view name) const {
  if (const TensorInfo* tensor = find(name)) return *tensor;
  throw InputError(fmt::format("{}: no tensor {}", directory_.string(), quote(name)));
}

std::uint64_t Checkpoint::total_bytes() const {
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : tensors_) bytes += tensor.num_bytes;
  return bytes;
}

void Checkpoint::read(const TensorInfo& tensor, std::uint64_t offset,
                      std::span<std::byte> out) const {
  files_.at(tensor.shard)->read(tensor, offset, out);
}

}  // namespace moefy
