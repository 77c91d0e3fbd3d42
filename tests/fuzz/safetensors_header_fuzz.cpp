// modules: checkpoint
#include <cstdlib>
#include <cstring>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"

/// The first two bytes say how much data follows the header, the rest is the header. Whatever is
/// accepted must cover the data exactly.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint16_t data_bytes = 0;
  if (size < sizeof data_bytes) return 0;
  std::memcpy(&data_bytes, data, sizeof data_bytes);
  const std::string_view header(reinterpret_cast<const char*>(data) + sizeof data_bytes,
                                size - sizeof data_bytes);
  const std::uint64_t data_begin = 8 + header.size();
  try {
    std::map<std::string, std::string> metadata;
    const auto tensors =
        moefy::parse_safetensors_header(header, data_begin + data_bytes, "fuzz", &metadata);
    std::uint64_t end = data_begin;
    for (const moefy::TensorInfo& tensor : tensors) {
      std::uint64_t bytes = moefy::size_of(tensor.dtype);
      for (const std::int64_t extent : tensor.shape) bytes *= static_cast<std::uint64_t>(extent);
      if (tensor.offset != end || tensor.num_bytes != bytes) std::abort();
      end += tensor.num_bytes;
    }
    if (end != data_begin + data_bytes) std::abort();
  } catch (const moefy::InputError&) {
  }
  return 0;
}
