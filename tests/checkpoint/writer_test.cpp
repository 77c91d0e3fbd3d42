#include "moefy/checkpoint/writer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

using test::TempDir;

std::vector<std::string> names(const ShardPlan::File& file) {
  std::vector<std::string> result;
  for (const TensorSpec& tensor : file.tensors) result.push_back(tensor.name);
  return result;
}

TensorSpec bytes_tensor(const std::string& name, std::int64_t bytes) {
  return {name, DType::u8, {bytes}};
}

TEST(PlanShardsTest, fills_files_up_to_the_size_in_the_given_order) {
  const ShardPlan plan = plan_shards(
      {bytes_tensor("d", 40), bytes_tensor("c", 60), bytes_tensor("b", 1), bytes_tensor("a", 99)},
      100);

  ASSERT_EQ(plan.files.size(), 2u);
  EXPECT_THAT(names(plan.files[0]), ElementsAre("d", "c"));
  EXPECT_THAT(names(plan.files[1]), ElementsAre("b", "a"));
  EXPECT_EQ(plan.files[0].file_name, "model-00001-of-00002.safetensors");
  EXPECT_EQ(plan.files[1].file_name, "model-00002-of-00002.safetensors");
  EXPECT_EQ(plan.total_bytes, 200u);
}

TEST(PlanShardsTest, gives_large_tensors_a_file_of_their_own) {
  const ShardPlan plan =
      plan_shards({bytes_tensor("a", 5), bytes_tensor("big", 500), bytes_tensor("b", 5)}, 100);

  ASSERT_EQ(plan.files.size(), 3u);
  EXPECT_THAT(names(plan.files[1]), ElementsAre("big"));
}

TEST(PlanShardsTest, puts_nothing_into_no_files) {
  EXPECT_TRUE(plan_shards({}, 100).files.empty());
}

TEST(TensorSpecTest, refuses_sizes_that_overflow) {
  const std::int64_t big = std::numeric_limits<std::int64_t>::max();

  EXPECT_EQ((TensorSpec{"a", DType::f16, {3, 5}}).num_bytes(), 30u);
  EXPECT_THROW((TensorSpec{"a", DType::u8, {big, 3}}).num_bytes(), InternalError);
  EXPECT_THROW((TensorSpec{"a", DType::u8, {-1}}).num_bytes(), InternalError);
}

TEST(SafetensorsWriterTest, writes_the_golden_bytes) {
  const TempDir dir;
  const std::vector<TensorSpec> tensors{{"w", DType::u8, {2, 2}}, {"v", DType::bf16, {1}}};
  const char data[] = "abcdXY";

  SafetensorsWriter writer(dir / "x.safetensors", tensors);
  writer.write(1, 0, std::as_bytes(std::span(data + 4, 2)));
  writer.write(0, 2, std::as_bytes(std::span(data + 2, 2)));
  writer.write(0, 0, std::as_bytes(std::span(data, 2)));
  writer.finish();

  const std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},)"
      R"("v":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]}})";
  ASSERT_EQ(header.size(), 140u);
  std::string expected("\x90\0\0\0\0\0\0\0", 8);  // 144: the next multiple of 8
  expected += header + "    abcdXY";
  EXPECT_EQ(test::read_text(dir / "x.safetensors"), expected);
}

TEST(SafetensorsWriterTest, keeps_given_metadata) {
  const TempDir dir;
  SafetensorsWriter(dir / "x.safetensors", {}, {{"note", "\"quoted\""}}).finish();

  EXPECT_THAT(test::read_text(dir / "x.safetensors"),
              HasSubstr(R"({"__metadata__":{"format":"pt","note":"\"quoted\""}})"));
}

TEST(SafetensorsWriterTest, refuses_missing_repeated_and_outside_bytes) {
  const TempDir dir;
  const std::vector<TensorSpec> tensors{{"first", DType::u8, {4}}, {"second", DType::u8, {2}}};
  const std::vector<std::byte> four(4);
  SafetensorsWriter writer(dir / "x.safetensors", tensors);
  writer.write(0, 0, four);

  EXPECT_THROW(writer.write(0, 0, four), InternalError);
  EXPECT_THROW(writer.write(1, 0, four), InternalError);
  EXPECT_THROW(writer.write(1, ~std::uint64_t{0}, four), InternalError);
  EXPECT_THROW(writer.write(2, 0, {}), InternalError);
  EXPECT_THAT([&] { writer.finish(); },
              ThrowsMessage<InternalError>(HasSubstr("2 bytes of tensor 'second'")));
}

TEST(SafetensorsWriterTest, reports_a_path_that_cannot_be_written) {
  const TempDir dir;

  EXPECT_THAT([&] { SafetensorsWriter(dir / "no" / "x.safetensors", {}); },
              ThrowsMessage<IoError>(HasSubstr("x.safetensors")));
}

TEST(WriteIndexTest, gives_a_checkpoint_that_opens) {
  const TempDir dir;
  const test::TinyModel model = test::tiny_model("llama");
  std::vector<TensorSpec> specs;
  for (const auto& tensor : model.tensors)
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  const ShardPlan plan = plan_shards(specs, 3000);
  test::write_text(dir / "config.json", model.config);
  std::size_t next = 0;
  for (const ShardPlan::File& file : plan.files) {
    SafetensorsWriter writer(dir / file.file_name, file.tensors);
    for (std::size_t i = 0; i < file.tensors.size(); ++i)
      writer.write(i, 0, model.tensors[next++].bytes);
    writer.finish();
  }
  write_index(dir.path(), plan);

  const Checkpoint checkpoint = Checkpoint::open(dir.path());

  EXPECT_GT(checkpoint.shards().size(), 2u);
  EXPECT_EQ(checkpoint.total_bytes(), plan.total_bytes);
  for (const auto& expected : model.tensors) {
    std::vector<std::byte> bytes(expected.bytes.size());
    checkpoint.read(checkpoint.at(expected.name), 0, bytes);
    EXPECT_EQ(bytes, expected.bytes) << expected.name;
  }
  EXPECT_THAT(test::read_text(dir / "model.safetensors.index.json"),
              HasSubstr("\"total_size\": " + std::to_string(plan.total_bytes)));
}

}  // namespace
}  // namespace moefy
