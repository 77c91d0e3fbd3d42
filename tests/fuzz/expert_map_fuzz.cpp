// modules: store
#include <cstdlib>
#include <cstring>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/core/hash.hpp"
#include "moefy/store/expert_map.hpp"

namespace {

constexpr std::size_t kUserBlock = 512;

/// A user block that is right for `content`, as docs/file-formats.md has it: without it every input
/// would end at the checksum.
std::vector<std::byte> sealed(std::span<const std::byte> content) {
  std::vector<std::byte> file(kUserBlock + content.size());
  const std::uint64_t length = content.size();
  const moefy::Digest digest = moefy::hash_bytes(content);
  std::memcpy(file.data(), "moefy expert map", 16);
  std::memcpy(file.data() + 16, &length, 8);
  std::memcpy(file.data() + 24, &digest.low, 8);
  std::memcpy(file.data() + 32, &digest.high, 8);
  if (!content.empty()) std::memcpy(file.data() + kUserBlock, content.data(), content.size());
  return file;
}

}  // namespace

/// The input is the HDF5 part. What is accepted must be writable again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = sealed(std::as_bytes(std::span(data, size)));
  try {
    const moefy::ExpertMap map = moefy::parse_expert_map(file, "fuzz");
    for (const moefy::LayerResult& layer : map.layers)
      layer.sharing ? layer.sharing->verify() : layer.partition.verify();
    (void)moefy::expert_map_bytes(map);
  } catch (const moefy::InputError&) {
  }
  return 0;
}
