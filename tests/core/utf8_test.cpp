#include "moefy/core/utf8.hpp"

#include <gtest/gtest.h>

namespace moefy {
namespace {

TEST(ValidUtf8Test, replaces_what_is_no_character) {
  const std::string mark = "\xEF\xBF\xBD";
  for (const char* good :
       {"", "model", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xED\x9F\xBF"})
    EXPECT_EQ(valid_utf8(good), good);
  EXPECT_EQ(valid_utf8("a\xFF"
                       "b"),
            "a" + mark + "b");
  EXPECT_EQ(valid_utf8("\xC3"), mark);
  EXPECT_EQ(valid_utf8("\xC0\x80"), mark + mark);             // overlong
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), mark + mark + mark);  // half of a surrogate pair
  EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80"), mark + mark + mark + mark);
}

}  // namespace
}  // namespace moefy
