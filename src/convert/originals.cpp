#include "originals.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "moefy/core/error.hpp"
#include "produce.hpp"

namespace moefy {

namespace {

constexpr const char* kFileName = "originals.safetensors";

/// Calls body(offset, bytes) for all bytes of a source tensor.
template <class Body>
void for_blocks(std::uint64_t num_bytes, Body&& body) {
  for (std::uint64_t done = 0; done < num_bytes; done += kBlockBytes)
    body(done, static_cast<std::size_t>(std::min<std::uint64_t>(kBlockBytes, num_bytes - done)));
}

}  // namespace

void write_originals(const ConversionPlan& plan, const Checkpoint& checkpoint,
                     const std::filesystem::path& own_directory) {
  if (plan.originals.empty()) return;
  std::vector<TensorSpec> specs;
  for (const std::size_t tensor : plan.originals) specs.push_back(plan.source.tensors[tensor].spec);
  SafetensorsWriter writer(own_directory / kFileName, specs);
  std::vector<std::byte> block(kBlockBytes);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const TensorInfo& info = checkpoint.at(specs[i].name);
    for_blocks(info.num_bytes, [&](std::uint64_t offset, std::size_t size) {
      const std::span<std::byte> bytes = std::span(block).first(size);
      checkpoint.read(info, offset, bytes);
      writer.write(i, offset, bytes);
    });
  }
  writer.finish();
}

Originals::Originals(const ConversionPlan& plan, const std::filesystem::path& output)
    : info_(plan.source.tensors.size(), nullptr) {
  if (plan.originals.empty()) return;
  file_.emplace(output / "moefy" / kFileName);
  for (const std::size_t tensor : plan.originals) {
    const TensorSpec& spec = plan.source.tensors[tensor].spec;
    const TensorInfo* info = file_->find(spec.name);
    if (!info || info->dtype != spec.dtype || info->shape != spec.shape)
      throw InputError(fmt::format("{}: tensor '{}' is missing or has another shape or dtype",
                                   file_->path().string(), spec.name));
    info_[tensor] = info;
  }
}

void Originals::read(std::size_t source_tensor, std::uint64_t offset,
                     std::span<std::byte> out) const {
  require(file_.has_value() && info_[source_tensor], "a plan with originals");
  file_->read(*info_[source_tensor], offset, out);
}

std::vector<std::string> compare_originals(const ConversionPlan& plan, const Checkpoint& dense,
                                           const std::filesystem::path& output) {
  std::vector<std::string> differences;
  if (plan.originals.empty()) return differences;
  const Originals originals(plan, output);
  std::vector<std::byte> kept(kBlockBytes);
  std::vector<std::byte> expected(kBlockBytes);
  for (const std::size_t tensor : plan.originals) {
    const TensorInfo& info = dense.at(plan.source.tensors[tensor].spec.name);
    bool equal = true;
    for_blocks(info.num_bytes, [&](std::uint64_t offset, std::size_t size) {
      if (!equal) return;
      originals.read(tensor, offset, std::span(kept).first(size));
      dense.read(info, offset, std::span(expected).first(size));
      equal = std::memcmp(kept.data(), expected.data(), size) == 0;
    });
    if (!equal)
      differences.push_back(
          fmt::format("moefy/{}: tensor '{}' is not the source's", kFileName, info.name));
  }
  return differences;
}

}  // namespace moefy
