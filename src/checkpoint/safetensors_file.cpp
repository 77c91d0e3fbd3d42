#include "moefy/checkpoint/safetensors_file.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "moefy/core/error.hpp"
#include "quote.hpp"

namespace moefy {

namespace {

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

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path),
      header_(read_header(file_)),
      tensors_(parse_safetensors_header(header_, file_.size(), path.string(), &metadata_)) {}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors_, name, &TensorInfo::name);
  return found == tensors_.end() ? nullptr : &*found;
}

void SafetensorsFile::read(const TensorInfo& tensor, std::uint64_t offset,
                           std::span<std::byte> out) const {
  require(offset <= tensor.num_bytes && out.size() <= tensor.num_bytes - offset,
          "read within the tensor");
  try {
    file_.read(tensor.offset + offset, out);
  } catch (const Error&) {
    rethrow_with_context(fmt::format("tensor {}", quote(tensor.name)));
  }
}

Digest content_fingerprint(const SafetensorsFile& file) {
  constexpr std::uint64_t kBlock = 1u << 20;
  Hasher hasher;
  std::vector<std::byte> buffer(kBlock);
  for (const TensorInfo& tensor : file.tensors()) {
    hasher.add_text(tensor.name);
    hasher.add_text(name_of(tensor.dtype));
    hasher.add_number(tensor.shape.size());
    for (const std::int64_t extent : tensor.shape)
      hasher.add_number(static_cast<std::uint64_t>(extent));
    for (std::uint64_t offset = 0; offset < tensor.num_bytes; offset += kBlock) {
      const auto block = std::span(buffer).first(std::min(kBlock, tensor.num_bytes - offset));
      file.read(tensor, offset, block);
      hasher.add(block);
    }
  }
  return hasher.digest();
}

}  // namespace moefy
