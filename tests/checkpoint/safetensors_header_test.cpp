#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

std::vector<TensorInfo> parse(const std::string& header, std::uint64_t data_bytes,
                              std::map<std::string, std::string>* metadata = nullptr) {
  return parse_safetensors_header(header, 8 + header.size() + data_bytes, "w.safetensors",
                                  metadata);
}

TEST(SafetensorsHeaderTest, gives_tensors_in_file_order_with_offsets_in_the_file) {
  const std::string header = R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
                             R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}  )";

  const auto tensors = parse(header, 16);

  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype, DType::f32);
  EXPECT_THAT(tensors[0].shape, IsEmpty());
  EXPECT_EQ(tensors[0].offset, 8 + header.size());
  EXPECT_EQ(tensors[0].num_bytes, 4u);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].dtype, DType::bf16);
  EXPECT_THAT(tensors[1].shape, ElementsAre(2, 3));
  EXPECT_EQ(tensors[1].offset, 8 + header.size() + 4);
  EXPECT_EQ(tensors[1].num_bytes, 12u);
}

TEST(SafetensorsHeaderTest, reads_metadata_strings) {
  std::map<std::string, std::string> metadata;

  parse(R"({"__metadata__":{"format":"pt","note":"x"}})", 0, &metadata);

  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"note", "x"}}));
}

TEST(SafetensorsHeaderTest, accepts_tensors_without_elements_anywhere) {
  const auto tensors = parse(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("empty":{"dtype":"F32","shape":[0,8],"data_offsets":[0,0]},)"
                             R"("last":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}})",
                             1);

  EXPECT_EQ(tensors.size(), 3u);
}

TEST(SafetensorsHeaderTest, accepts_unaligned_tensors) {
  const auto tensors = parse(R"({"byte":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("wide":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})",
                             9);

  EXPECT_EQ(tensors[1].num_bytes, 8u);
}

struct BadHeader {
  const char* name;
  std::string header;
  std::uint64_t data_bytes;
  const char* problem;
};

class BadHeaderTest : public testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, is_refused_with_file_and_reason) {
  const BadHeader& bad = GetParam();

  EXPECT_THAT([&] { parse(bad.header, bad.data_bytes); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("w.safetensors"), HasSubstr(bad.problem))));
}

/// A header with the one tensor 'x' of these fields.
std::string x(const std::string& fields) { return R"({"x":{)" + fields + "}}"; }

const BadHeader kBadHeaders[] = {
    {"empty", "", 0, "not a JSON object"},
    {"array", "[]", 0, "not a JSON object"},
    {"byte_order_mark", "\xEF\xBB\xBF{}", 0, "not a JSON object"},
    {"cut_json", R"({"x":{"dtype")", 0, "not valid JSON"},
    {"text_after_json", "{}{}", 0, "not valid JSON"},
    {"nul_behind_json", std::string("{}\0garbage", 10), 0, "not a JSON object"},
    {"invalid_utf8", "{\"\xff\":{}}", 0, "not valid JSON"},
    {"tensor_is_number", R"({"x":1})", 0, "tensor 'x': a number where an object"},
    {"tensor_is_null", R"({"x":null})", 0, "null where an object"},
    {"tensor_is_array", R"({"x":[]})", 0, "tensor 'x': an array"},
    {"duplicate_tensor",
     R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
     2, "tensor 'x': the name occurs twice"},
    {"duplicate_escaped_tensor",
     R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("\u0078":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
     2, "tensor 'x': the name occurs twice"},
    {"duplicate_field", x(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])"), 1,
     "tensor 'x': the key 'dtype' occurs twice"},
    {"duplicate_shape", x(R"("dtype":"U8","shape":[],"shape":[1],"data_offsets":[0,1])"), 1,
     "the key 'shape' occurs twice"},
    {"duplicate_metadata", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "the key 'a' occurs twice"},
    {"two_metadata", R"({"__metadata__":{},"__metadata__":{}})", 0, "occurs twice"},
    {"metadata_number", R"({"__metadata__":{"a":1}})", 0, "a number in 'a'"},
    {"metadata_object", R"({"__metadata__":{"a":{}}})", 0, "nested deeper"},
    {"metadata_string", R"({"__metadata__":"pt"})", 0, "a string where an object"},
    {"no_dtype", x(R"("shape":[1],"data_offsets":[0,1])"), 1, "no field 'dtype'"},
    {"no_shape", x(R"("dtype":"U8","data_offsets":[0,1])"), 1, "no field 'shape'"},
    {"no_offsets", x(R"("dtype":"U8","shape":[1])"), 1, "no field 'data_offsets'"},
    {"unknown_field", x(R"("dtype":"U8","shape":[],"data_offsets":[0,1],"more":[])"), 1,
     "an array in 'more'"},
    {"unknown_text_field", x(R"("dtype":"U8","shape":[],"data_offsets":[0,1],"more":"a")"), 1,
     "a string in 'more'"},
    {"unknown_dtype", x(R"("dtype":"F12","shape":[1],"data_offsets":[0,1])"), 1,
     "unknown dtype 'F12'"},
    {"dtype_number", x(R"("dtype":7,"shape":[1],"data_offsets":[0,1])"), 1, "a number in 'dtype'"},
    {"shape_negative", x(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), 1,
     "a negative number in 'shape'"},
    {"shape_float", x(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), 1,
     "a number that is not a whole one"},
    {"shape_string", x(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"), 1,
     "a string in 'shape'"},
    {"shape_nested", x(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"), 1,
     "an array in 'shape'"},
    {"shape_object", x(R"("dtype":"U8","shape":[{}],"data_offsets":[0,1])"), 1, "nested deeper"},
    {"shape_above_2_64", x(R"("dtype":"U8","shape":[18446744073709551617],"data_offsets":[0,1])"),
     1, "a number that is not a whole one below 2^64"},
    {"shape_above_2_63", x(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1])"), 1,
     "product of its shape overflows"},
    // 2^32 * 2^32 elements are 0 modulo 2^64: the extents would seem to fit.
    {"product_wraps_to_zero",
     x(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0,
     "product of its shape overflows"},
    {"product_times_size_wraps",
     x(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), 0,
     "product of its shape overflows"},
    {"offsets_negative", x(R"("dtype":"U8","shape":[1],"data_offsets":[-1,0])"), 1,
     "a negative number in 'data_offsets'"},
    {"offsets_reversed", x(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), 1, "begin and end"},
    {"offsets_three", x(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,2])"), 1, "begin and end"},
    {"offsets_one", x(R"("dtype":"U8","shape":[1],"data_offsets":[0])"), 1, "begin and end"},
    {"extent_too_small", x(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4,
     "takes 8 bytes, but data_offsets span 4"},
    {"extent_too_large", x(R"("dtype":"F32","shape":[2],"data_offsets":[0,12])"), 12,
     "takes 8 bytes, but data_offsets span 12"},
    {"outside_the_file", x(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), 7,
     "tensor 'x' ends at data byte 8, but the file holds only 7"},
    {"far_outside",
     x(R"("dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,)"
       R"(18446744073709551615])"),
     1, "belong to no tensor"},
    {"hole_at_start", x(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), 2,
     "data bytes 0 to 1 before tensor 'x' belong to no tensor"},
    {"hole_between",
     R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("y":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
     3, "data bytes 1 to 2 before tensor 'y'"},
    {"overlap",
     R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
     R"("y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
     3, "tensors 'x' and 'y' overlap at data byte 1"},
    {"same_bytes",
     R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("y":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})",
     1, "overlap"},
    {"trailing_bytes", x(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), 3,
     "2 bytes after the last tensor"},
    {"data_without_tensors", "{}", 5, "5 bytes after the last tensor"},
    {"empty_name", R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "an empty name"},
    {"control_characters", R"({"a\u001b[2Jb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
     "tensor 'a?[2Jb': an empty name, or one with control characters"},
    {"nested_bomb", R"({"x":)" + std::string(100000, '['), 0, "an array"},
    {"nested_object_bomb",
     [] {
       std::string bomb;
       for (int i = 0; i < 100000; ++i) bomb += R"({"x":)";
       return bomb;
     }(),
     0, "nested deeper"},
    {"endless_shape",
     [] {
       std::string ones = "1";
       for (int i = 0; i < 1000; ++i) ones += ",1";
       return x(R"("dtype":"U8","data_offsets":[0,1],"shape":[)" + ones + "]");
     }(),
     1, "more than 64 numbers in 'shape'"},
};

INSTANTIATE_TEST_SUITE_P(All, BadHeaderTest, testing::ValuesIn(kBadHeaders),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(SafetensorsHeaderTest, cuts_long_names_in_messages) {
  const std::string header = R"({")" + std::string(5000, 'n') + R"(":1})";

  try {
    parse(header, 0);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_LT(std::string(error.what()).size(), 400u);
  }
}

TEST(SafetensorsHeaderTest, refuses_a_file_shorter_than_the_header) {
  EXPECT_THAT([] { parse_safetensors_header("{}      ", 15, "w.safetensors"); },
              ThrowsMessage<InputError>(HasSubstr("takes 16 bytes, but the file has only 15")));
}

}  // namespace
}  // namespace moefy
