#include "moefy/core/hash.hpp"

#include <gtest/gtest.h>

#include <string>

namespace moefy {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(HasherTest, gives_the_published_value_of_the_empty_input) {
  // XXH3-128 of nothing with seed 0, from the reference implementation's test vectors.
  EXPECT_EQ(hash_bytes({}).hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(HasherTest, does_not_depend_on_how_the_input_is_cut) {
  const std::string text(10'000, 'x');

  Hasher pieces;
  pieces.add(bytes_of(text.substr(0, 17)));
  pieces.add(bytes_of(text.substr(17)));

  EXPECT_EQ(pieces.digest(), hash_bytes(bytes_of(text)));
}

TEST(HasherTest, tells_texts_apart_that_only_concatenate_equally) {
  Hasher first;
  first.add_text("ab");
  first.add_text("c");
  Hasher second;
  second.add_text("a");
  second.add_text("bc");

  EXPECT_NE(first.digest(), second.digest());
}

}  // namespace
}  // namespace moefy
