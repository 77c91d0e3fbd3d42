#include "moefy/checkpoint/json_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

void expect_refused(const std::string& text, const std::string& problem) {
  SCOPED_TRACE(text.substr(0, 60));
  EXPECT_THAT([&] { check_json_object(text, "config.json"); },
              ThrowsMessage<InputError>(HasSubstr("config.json: " + problem)));
}

TEST(JsonTextTest, accepts_an_object_of_everything) {
  EXPECT_NO_THROW(check_json_object(
      R"({"a": [1, -2, 3.5, true, null, "t", {"a": {}}], "b": {"a": []}, "ä": 1e300})", "x"));
}

TEST(JsonTextTest, refuses_what_is_no_object) {
  for (const char* text : {"[]", "[{}]", "3", "\"a\"", "null", "true", "-1", "1.5"})
    expect_refused(text, "the JSON is not an object");
}

TEST(JsonTextTest, refuses_text_that_is_no_json) {
  for (const char* text : {"", " ", "{", "{}}", "{'a': 1}", R"({"a": NaN})", R"({"a": 1,})",
                           R"({"a": 1e999})", "{\"a\": \"\xc3\"}"})
    expect_refused(text, "not valid JSON at byte");
}

TEST(JsonTextTest, refuses_duplicate_keys_at_any_level) {
  expect_refused(R"({"a": 1, "b": 2, "a": 3})", "the key 'a' occurs twice");
  expect_refused(R"({"o": [{"x": {"k": 1, "k": 1}}]})", "the key 'k' occurs twice");
}

TEST(JsonTextTest, accepts_equal_keys_of_different_objects) {
  EXPECT_NO_THROW(check_json_object(R"({"a": {"a": 1}, "b": {"a": 1}, "c": [{"a": 1}]})", "x"));
}

TEST(JsonTextTest, refuses_nul_bytes) {
  expect_refused(std::string("{}\0", 3), "NUL byte at byte 2");
}

TEST(JsonTextTest, refuses_deep_nesting) {
  EXPECT_NO_THROW(
      check_json_object(R"({"a":)" + std::string(63, '[') + std::string(63, ']') + "}", "x"));
  expect_refused(R"({"a":)" + std::string(64, '[') + std::string(64, ']') + "}",
                 "JSON nested more than 64 levels");
  expect_refused(R"({"a":)" + std::string(1000000, '['), "JSON nested more than 64 levels");
}

}  // namespace
}  // namespace moefy
