#include "gguf_file.hpp"

#include <bit>
#include <cstring>

#include "moefy/core/error.hpp"

namespace moefy::gguf {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kAlignment = 32;
constexpr std::uint32_t kVersion = 3;

enum ValueType : std::uint32_t {
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kText = 8,
  kArray = 9
};

template <class T>
void append(std::string& bytes, const T& value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  bytes.append(raw, sizeof value);
}

void append_text(std::string& bytes, std::string_view text) {
  append(bytes, static_cast<std::uint64_t>(text.size()));
  bytes.append(text);
}

std::uint32_t type_code(DType dtype) {
  if (dtype == DType::f32) return 0;
  if (dtype == DType::f16) return 1;
  require(dtype == DType::bf16, "GGUF tensors are F32, F16 or BF16 here");
  return 30;
}

std::uint64_t aligned(std::uint64_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

/// Everything before the tensors' data, padded.
std::string head(const Metadata& metadata, std::span<const TensorSpec> tensors) {
  std::string bytes = "GGUF";
  append(bytes, kVersion);
  append(bytes, static_cast<std::uint64_t>(tensors.size()));
  append(bytes, metadata.count());
  bytes.append(metadata.bytes());
  std::uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    append_text(bytes, tensor.name);
    append(bytes, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent)
      append(bytes, *extent);
    append(bytes, type_code(tensor.dtype));
    append(bytes, offset);
    offset = aligned(offset + tensor.num_bytes());
  }
  bytes.resize(aligned(bytes.size()));
  return bytes;
}

}  // namespace

void Metadata::begin(std::string_view key, std::uint32_t type) {
  ++count_;
  append_text(bytes_, key);
  append(bytes_, type);
}

void Metadata::add(std::string_view key, std::uint32_t value) {
  begin(key, kUint32);
  append(bytes_, value);
}

void Metadata::add(std::string_view key, float value) {
  begin(key, kFloat32);
  append(bytes_, value);
}

void Metadata::add(std::string_view key, bool value) {
  begin(key, kBool);
  append(bytes_, static_cast<std::uint8_t>(value));
}

void Metadata::add(std::string_view key, const std::string& value) {
  begin(key, kText);
  append_text(bytes_, value);
}

void Metadata::add(std::string_view key, std::span<const std::string> values) {
  begin(key, kArray);
  append(bytes_, static_cast<std::uint32_t>(kText));
  append(bytes_, static_cast<std::uint64_t>(values.size()));
  for (const std::string& value : values) append_text(bytes_, value);
}

void Metadata::add(std::string_view key, std::span<const std::int32_t> values) {
  begin(key, kArray);
  append(bytes_, static_cast<std::uint32_t>(kInt32));
  append(bytes_, static_cast<std::uint64_t>(values.size()));
  for (const std::int32_t value : values) append(bytes_, value);
}

std::uint64_t TensorSpec::num_values() const {
  std::uint64_t count = 1;
  for (const std::uint64_t extent : shape) count *= extent;
  return count;
}

std::uint64_t file_bytes(const Metadata& metadata, std::span<const TensorSpec> tensors) {
  std::uint64_t bytes = head(metadata, tensors).size();
  for (const TensorSpec& tensor : tensors) bytes += aligned(tensor.num_bytes());
  return bytes;
}

Writer::Writer(std::filesystem::path path, const Metadata& metadata,
               std::span<const TensorSpec> tensors)
    : file_(std::move(path)), tensors_(tensors.begin(), tensors.end()) {
  const std::string bytes = head(metadata, tensors);
  file_.write(0, std::as_bytes(std::span(bytes)));
  std::uint64_t offset = bytes.size();
  for (const TensorSpec& tensor : tensors_) {
    begin_.push_back(offset);
    offset = aligned(offset + tensor.num_bytes());
  }
}

void Writer::write(std::span<const std::byte> bytes) {
  require(current_ < tensors_.size() && written_ + bytes.size() <= tensors_[current_].num_bytes(),
          "no more bytes than the tensor has");
  file_.write(begin_[current_] + written_, bytes);
  written_ += bytes.size();
}

void Writer::finish_tensor() {
  require(written_ == tensors_[current_].num_bytes(), "all bytes of " + tensors_[current_].name);
  const std::uint64_t end = begin_[current_] + written_;
  if (const std::uint64_t padding = aligned(end) - end; padding > 0)
    file_.write(end, std::vector<std::byte>(padding));
  ++current_;
  written_ = 0;
}

void Writer::finish() {
  require(current_ == tensors_.size(), "all tensors are written");
  file_.finish();
}

}  // namespace moefy::gguf
