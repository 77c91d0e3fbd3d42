#include "moefy/checkpoint/writer.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// Insertion order is kept: the metadata first, then the tensors as they lie in the file.
using Json = nlohmann::ordered_json;

std::string header_text(std::span<const TensorSpec> tensors,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  // ordered_json looks for the key at every insertion; appending to the vector below it does not.
  auto& entries = header.get_ref<Json::object_t&>();
  entries.reserve(tensors.size() + 1);
  for (const TensorSpec& tensor : tensors) {
    const std::uint64_t end = offset + tensor.num_bytes();
    Json entry = Json::object();
    entry["dtype"] = name_of(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {offset, end};
    entries.emplace_back(tensor.name, std::move(entry));
    offset = end;
  }
  std::string text = header.dump();
  constexpr std::size_t kAlignment = 8;
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  return text;
}

}  // namespace

std::uint64_t TensorSpec::num_bytes() const {
  std::uint64_t bytes = size_of(dtype);
  for (const std::int64_t extent : shape) {
    require(extent >= 0, "tensor extents are not negative");
    require(!__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes),
            "the size of a tensor fits in 64 bits");
  }
  return bytes;
}

ShardPlan plan_shards(std::vector<TensorSpec> tensors, std::uint64_t shard_size) {
  ShardPlan plan;
  std::uint64_t file_bytes = 0;
  for (TensorSpec& tensor : tensors) {
    const std::uint64_t bytes = tensor.num_bytes();
    const bool full = file_bytes > 0 && (bytes > shard_size || file_bytes > shard_size - bytes);
    if (plan.files.empty() || full) {
      plan.files.emplace_back();
      file_bytes = 0;
    }
    plan.files.back().tensors.push_back(std::move(tensor));
    file_bytes += bytes;
    plan.total_bytes += bytes;
  }
  for (std::size_t i = 0; i < plan.files.size(); ++i)
    plan.files[i].file_name =
        fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, plan.files.size());
  return plan;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path,
                                     std::span<const TensorSpec> tensors,
                                     std::map<std::string, std::string> metadata)
    : file_(std::move(path)) {
  metadata["format"] = "pt";
  const std::string header = header_text(tensors, metadata);
  const std::uint64_t length = header.size();
  file_.write(0, std::as_bytes(std::span(&length, 1)));
  file_.write(sizeof length, std::as_bytes(std::span(header)));

  std::uint64_t begin = sizeof length + header.size();
  for (const TensorSpec& tensor : tensors) {
    begin_.push_back(begin);
    left_.push_back(tensor.num_bytes());
    names_.push_back(tensor.name);
    begin += left_.back();
  }
  end_ = begin;
}

void SafetensorsWriter::write(std::size_t tensor, std::uint64_t offset,
                              std::span<const std::byte> bytes) {
  require(tensor < begin_.size(), "tensor number of the writer");
  const std::uint64_t end = tensor + 1 < begin_.size() ? begin_[tensor + 1] : end_;
  const std::uint64_t size = end - begin_[tensor];
  require(offset <= size && bytes.size() <= size - offset, "write within the tensor");
  require(bytes.size() <= left_[tensor], "no byte is written twice");
  file_.write(begin_[tensor] + offset, bytes);
  left_[tensor] -= bytes.size();
}

void SafetensorsWriter::finish() {
  for (std::size_t i = 0; i < left_.size(); ++i)
    if (left_[i] != 0)
      throw InternalError(fmt::format("{}: {} bytes of tensor '{}' were not written",
                                      file_.path().string(), left_[i], names_[i]));
  file_.finish();
}

void write_index(const std::filesystem::path& directory, const ShardPlan& plan) {
  nlohmann::json weight_map = nlohmann::json::object();
  for (const ShardPlan::File& file : plan.files)
    for (const TensorSpec& tensor : file.tensors) weight_map[tensor.name] = file.file_name;
  Json index;
  index["metadata"]["total_size"] = plan.total_bytes;
  index["weight_map"] = weight_map;
  write_file_atomically(directory / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace moefy
