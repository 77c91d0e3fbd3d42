#include "moefy/core/message.hpp"

#include "moefy/core/error.hpp"

namespace moefy {

std::span<const std::byte> MessageReader::take(std::size_t size) {
  require(at_ <= bytes_.size() && size <= bytes_.size() - at_, "a message has all its parts");
  const std::span<const std::byte> part(bytes_.data() + at_, size);
  at_ += size;
  return part;
}

std::span<const std::byte> MessageReader::take_array(std::size_t count, std::size_t size) {
  require(count <= bytes_.size() / size, "a message has all its parts");
  return take(count * size);
}

}  // namespace moefy
