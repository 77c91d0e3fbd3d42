#include <fmt/format.h>

#include <algorithm>

#include "model_layout.hpp"
#include "moefy/convert/gguf.hpp"
#include "moefy/core/error.hpp"
#include "tokenizer.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBlockBytes = std::uint64_t{1} << 20;

/// Copies tensors of a checkpoint into a GGUF file, a block at a time.
class Copier {
 public:
  Copier(const Checkpoint& model, gguf::Writer& writer, std::stop_token stop)
      : model_(model), writer_(writer), stop_(std::move(stop)) {}

  void copy(const gguf::Source& source) {
    if (source.tensors.empty()) {
      write_zeros(source.spec.num_bytes());
    }
    for (const TensorInfo* tensor : source.tensors) {
      if (source.interleaved_heads > 0)
        copy_interleaved(*tensor, source.spec, source.interleaved_heads);
      else
        copy_plain(*tensor, source.spec);
    }
    writer_.finish_tensor();
  }

 private:
  void copy_plain(const TensorInfo& tensor, const gguf::TensorSpec& spec) {
    for (std::uint64_t offset = 0; offset < tensor.num_bytes; offset += kBlockBytes) {
      raw_.resize(std::min(kBlockBytes, tensor.num_bytes - offset));
      model_.read(tensor, offset, raw_);
      write(tensor, spec);
    }
  }

  /// Of each head, row i of the first half is followed by row i of the second half.
  void copy_interleaved(const TensorInfo& tensor, const gguf::TensorSpec& spec,
                        std::int64_t heads) {
    const auto head_bytes = tensor.num_bytes / static_cast<std::uint64_t>(heads);
    const auto rows = static_cast<std::uint64_t>(tensor.shape[0] / heads);
    const std::uint64_t row_bytes = head_bytes / rows;
    std::vector<std::byte> head(head_bytes);
    for (std::uint64_t offset = 0; offset < tensor.num_bytes; offset += head_bytes) {
      model_.read(tensor, offset, head);
      raw_.resize(head_bytes);
      for (std::uint64_t row = 0; row < rows; ++row) {
        const std::uint64_t from = row % 2 * (rows / 2) + row / 2;
        std::copy_n(head.begin() + static_cast<std::ptrdiff_t>(from * row_bytes), row_bytes,
                    raw_.begin() + static_cast<std::ptrdiff_t>(row * row_bytes));
      }
      write(tensor, spec);
    }
  }

  /// raw_, in the type of the file.
  void write(const TensorInfo& tensor, const gguf::TensorSpec& spec) {
    if (stop_.stop_requested()) throw Interrupted("stopped while writing the GGUF file");
    if (tensor.dtype == spec.dtype) return writer_.write(raw_);
    values_.resize(raw_.size() / size_of(tensor.dtype));
    widen(tensor.dtype, raw_, values_);
    narrowed_.resize(values_.size() * size_of(spec.dtype));
    narrow(spec.dtype, values_, narrowed_);
    if (spec.dtype == DType::f16) check_range(tensor);
    writer_.write(narrowed_);
  }

  void check_range(const TensorInfo& tensor) {
    widen(DType::f16, narrowed_, values_);
    if (!first_non_finite(values_)) return;
    throw InputError(fmt::format("tensor '{}' has values beyond f16; take --gguf-type bf16 or f32",
                                 tensor.name));
  }

  void write_zeros(std::uint64_t bytes) {
    const std::vector<std::byte> zeros(std::min(bytes, kBlockBytes));
    for (std::uint64_t left = bytes; left > 0; left -= std::min(left, kBlockBytes))
      writer_.write(std::span(zeros).first(std::min(left, kBlockBytes)));
  }

  const Checkpoint& model_;
  gguf::Writer& writer_;
  std::stop_token stop_;
  std::vector<std::byte> raw_, narrowed_;
  std::vector<float> values_;
};

}  // namespace

void export_gguf(const Checkpoint& model, const fs::path& file, const std::string& type,
                 bool replace, std::stop_token stop) {
  if (!replace && fs::exists(file))
    throw UsageError(fmt::format("--gguf {} exists; --force replaces it", file.string()));
  gguf::Metadata metadata;
  const gguf::ModelLayout layout = gguf::lay_out_model(model, type, metadata);
  gguf::add_tokenizer(metadata, model.directory(), layout.vocab_size);
  std::vector<gguf::TensorSpec> specs;
  for (const gguf::Source& source : layout.tensors) specs.push_back(source.spec);
  require_free_space(file, gguf::file_bytes(metadata, specs));
  fs::path unfinished = file;
  unfinished += ".unfinished";
  try {
    gguf::Writer writer(unfinished, metadata, specs);
    Copier copier(model, writer, stop);
    for (const gguf::Source& source : layout.tensors) copier.copy(source);
    writer.finish();
    fs::rename(unfinished, file);
  } catch (const fs::filesystem_error& error) {
    throw IoError(fmt::format("{}: {}", file.string(), error.code().message()));
  } catch (...) {
    std::error_code ignored;
    fs::remove(unfinished, ignored);
    throw;
  }
  sync_directory(file.has_parent_path() ? file.parent_path() : fs::path("."));
}

}  // namespace moefy
