#include "attribute_values.hpp"

#include <fmt/format.h>

#include <charconv>
#include <limits>

namespace moefy {

namespace {

constexpr std::int64_t kMaxCount = std::numeric_limits<std::int32_t>::max();

}  // namespace

std::int64_t count_attribute(const ObjectReader& reader, const std::string& name) {
  const auto count = reader.number<std::int64_t>(name);
  if (count < 0 || count > kMaxCount) reader.fail(fmt::format("{} is {}", name, count));
  return count;
}

Digest digest_attribute(const ObjectReader& reader, const std::string& name) {
  const std::string text = reader.text(name);
  Digest digest;
  const char* begin = text.data();
  const bool parsed = text.size() == 32 &&
                      std::from_chars(begin, begin + 16, digest.high, 16).ptr == begin + 16 &&
                      std::from_chars(begin + 16, begin + 32, digest.low, 16).ptr == begin + 32;
  if (!parsed) reader.fail(fmt::format("{} is '{}', expected 32 hexadecimal digits", name, text));
  return digest;
}

}  // namespace moefy
