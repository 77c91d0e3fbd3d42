#include "moefy/store/layer_record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "map_compare.hpp"
#include "moefy/core/error.hpp"
#include "support/sample_map.hpp"

namespace moefy {
namespace {

using testing::HasSubstr;

LayerResult sample_layer() {
  auto map = test::sample_map({.num_layers = 3, .num_neurons = 23, .num_shared = 1});
  map.layers[2].router.bias = {1, 2, 3, 4};
  map.layers[2].zero_rows = 5;
  return std::move(map.layers[2]);
}

std::string error_of(std::span<const std::byte> bytes) {
  try {
    (void)decode_layer(bytes, "record 7");
  } catch (const InputError& error) {
    return error.what();
  }
  return "no InputError";
}

TEST(LayerRecordTest, comes_back_with_seconds_and_rank) {
  const LayerResult layer = sample_layer();

  const LayerResult again = decode_layer(encode_layer(layer), "memory");

  test::expect_equal_layers(again, layer);
  EXPECT_EQ(again.seconds, layer.seconds);
  EXPECT_EQ(again.rank, layer.rank);
}

TEST(LayerRecordTest, comes_back_with_nothing_but_a_partition) {
  LayerResult layer;
  layer.partition = Partition::from_labels({0, 1, 0}, 2, 0);

  test::expect_equal_layers(decode_layer(encode_layer(layer), "memory"), layer);
}

TEST(LayerRecordTest, has_equal_bytes_for_equal_results) {
  EXPECT_EQ(encode_layer(sample_layer()), encode_layer(sample_layer()));
}

TEST(LayerRecordTest, refuses_every_cut) {
  const auto bytes = encode_layer(sample_layer());

  for (std::size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_THAT(error_of(std::span(bytes).first(length)), testing::StartsWith("record 7: "))
        << "length " << length;
  }
}

TEST(LayerRecordTest, refuses_bytes_behind_the_end) {
  auto bytes = encode_layer(sample_layer());
  bytes.push_back(std::byte{0});

  EXPECT_THAT(error_of(bytes), HasSubstr("bytes follow"));
}

TEST(LayerRecordTest, refuses_another_version) {
  auto bytes = encode_layer(sample_layer());
  bytes[4] = std::byte{5};

  EXPECT_THAT(error_of(bytes), HasSubstr("version 5, expected 4"));
}

TEST(LayerRecordTest, survives_hostile_bytes_at_every_place) {
  const auto bytes = encode_layer(sample_layer());

  for (std::size_t at = 0; at + 8 <= bytes.size(); ++at) {
    auto hostile = bytes;
    std::fill_n(hostile.begin() + static_cast<std::ptrdiff_t>(at), 8, std::byte{0xff});
    // Values such as the inertia may be anything; lengths and labels may not.
    try {
      (void)decode_layer(hostile, "record 7");
    } catch (const InputError&) {
    }
  }
}

}  // namespace
}  // namespace moefy
