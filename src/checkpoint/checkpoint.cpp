#include "moefy/checkpoint/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "moefy/checkpoint/json_text.hpp"
#include "moefy/core/error.hpp"
#include "quantized.hpp"
#include "quote.hpp"
#include "weight_files.hpp"

namespace moefy {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kConfigLimit = 16'000'000;
constexpr std::uint64_t kHeaderLimit = 100'000'000;
constexpr std::string_view kLargeFilePointer = "version https://git-lfs";

/// The JSON text behind the length, which is checked before anything of its size is allocated.
std::string read_header(const InputFile& file) {
  const std::string path = file.path().string();
  std::uint64_t length = 0;
  if (file.size() < sizeof length)
    throw InputError(fmt::format("{}: not a safetensors file: only {} bytes", path, file.size()));
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));

  std::string start(std::min<std::uint64_t>(file.size(), kLargeFilePointer.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(start)));
  if (start == kLargeFilePointer)
    throw InputError(path + ": a Git LFS pointer, not the weights; run `git lfs pull`");
  if (length > kHeaderLimit)
    throw InputError(fmt::format(
        "{}: header length {} is above the limit of {} bytes; not a safetensors file, or damaged",
        path, length, kHeaderLimit));
  if (length > file.size() - sizeof length)
    throw InputError(fmt::format("{}: truncated: the header takes {} bytes, the file has {}", path,
                                 length + sizeof length, file.size()));
  std::string header(length, '\0');
  file.read(sizeof length, std::as_writable_bytes(std::span(header)));
  return header;
}

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
    InputFile& file = checkpoint.files_.emplace_back(directory / name);
    Shard shard{name, file.size(), read_header(file), {}};
    auto tensors = parse_safetensors_header(shard.header, shard.file_size, file.path().string(),
                                            &shard.metadata);
    for (TensorInfo& tensor : tensors) {
      tensor.shard = checkpoint.shards_.size();
      checkpoint.tensors_.push_back(std::move(tensor));
    }
    checkpoint.shards_.push_back(std::move(shard));
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
  require(offset <= tensor.num_bytes && out.size() <= tensor.num_bytes - offset,
          "read within the tensor");
  try {
    files_.at(tensor.shard).read(tensor.offset + offset, out);
  } catch (const Error&) {
    rethrow_with_context(fmt::format("tensor {}", quote(tensor.name)));
  }
}

}  // namespace moefy
