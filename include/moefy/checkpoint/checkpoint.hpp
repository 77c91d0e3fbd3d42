#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moefy/core/dtype.hpp"
#include "moefy/core/file.hpp"

namespace moefy {

/// One tensor of a checkpoint. The whole extent was checked against its file when it was opened.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::size_t shard = 0;     ///< index into Checkpoint::shards()
  std::uint64_t offset = 0;  ///< in the shard file
  std::uint64_t num_bytes = 0;
};

/// Reads one safetensors header. `file_size` is the whole file's size, `header` the JSON text
/// behind the 8-byte length. Throws InputError naming `file` and the tensor: not JSON, nesting,
/// duplicate keys, unknown dtype, negative or overflowing shape, extents that overlap, leave holes
/// or end outside the file. Tensors in file order.
std::vector<TensorInfo> parse_safetensors_header(
    std::string_view header, std::uint64_t file_size, const std::string& file,
    std::map<std::string, std::string>* metadata = nullptr);

class SafetensorsFile;

struct Shard {
  std::string file_name;
  std::uint64_t file_size = 0;
  std::string header;  ///< raw JSON header: part of the resume fingerprint
  std::map<std::string, std::string> metadata;
};

/// A Hugging Face model directory with safetensors weights, opened for reading by pread. Reading
/// is safe from several threads.
class Checkpoint {
 public:
  /// Opens config.json, model.safetensors or the sharded files of model.safetensors.index.json (or
  /// a directory with exactly one *.safetensors), and validates all headers. Throws InputError
  /// (missing shard, index and shards disagree, a quantised checkpoint by its method's name, only
  /// .bin or .gguf files) or IoError.
  static Checkpoint open(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  /// The exact bytes of config.json.
  const std::string& config_text() const { return config_text_; }
  /// By name, ascending.
  std::span<const TensorInfo> tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;
  /// InputError naming the directory if it is missing.
  const TensorInfo& at(std::string_view name) const;
  std::span<const Shard> shards() const { return shards_; }
  std::uint64_t total_bytes() const;

  /// Fills `out` with the tensor's bytes from `offset` (within the tensor). Errors name file and
  /// tensor.
  void read(const TensorInfo& tensor, std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path directory_;
  std::string config_text_;
  std::vector<TensorInfo> tensors_;
  std::vector<Shard> shards_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
};

/// Resolves MODEL of the command line: a directory, or the name of a model ("org/name") in the
/// local Hugging Face cache (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface/hub; revision main).
/// UsageError with a hint how to download it.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace moefy
