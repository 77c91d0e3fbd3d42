#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// Four encoder layers, then six decoder layers.
std::vector<LayerInfo> ten_layers() {
  std::vector<LayerInfo> layers(10);
  for (std::int64_t i = 0; i < 10; ++i) {
    LayerInfo& layer = layers[static_cast<std::size_t>(i)];
    layer.index = i;
    layer.stack = i < 4 ? "encoder" : "decoder";
    layer.index_in_stack = i < 4 ? i : i - 4;
  }
  return layers;
}

TEST(SelectLayersTest, takes_all_without_text) {
  EXPECT_THAT(select_layers("", ten_layers()), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(SelectLayersTest, takes_numbers_and_ranges) {
  EXPECT_THAT(select_layers("7", ten_layers()), ElementsAre(7));
  EXPECT_THAT(select_layers("0-2,7,9", ten_layers()), ElementsAre(0, 1, 2, 7, 9));
  EXPECT_THAT(select_layers("5-5", ten_layers()), ElementsAre(5));
}

TEST(SelectLayersTest, sorts_and_drops_repeats) {
  EXPECT_THAT(select_layers("7,1-3,2,7", ten_layers()), ElementsAre(1, 2, 3, 7));
}

TEST(SelectLayersTest, counts_within_a_stack) {
  EXPECT_THAT(select_layers("encoder.0-3", ten_layers()), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(select_layers("decoder.0-1,encoder.3", ten_layers()), ElementsAre(3, 4, 5));
}

TEST(SelectLayersTest, refuses_bad_syntax) {
  for (const char* text : {"3-1",
                           "-2",
                           "1-",
                           "-",
                           ",",
                           "1,",
                           ",1",
                           "1,,2",
                           "a",
                           "1-b",
                           " 1",
                           "1 ",
                           "+1",
                           "0x1",
                           "1.5",
                           "1e2",
                           "1-2-3",
                           "encoder.",
                           "encoder.-1",
                           "encoder",
                           "99999999999999999999",
                           "0-99999999999999999999"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT([&] { select_layers(text, ten_layers()); },
                ThrowsMessage<UsageError>(HasSubstr("--layers: '")));
  }
}

TEST(SelectLayersTest, refuses_layers_that_do_not_exist) {
  EXPECT_THAT([] { select_layers("10", ten_layers()); },
              ThrowsMessage<UsageError>(HasSubstr("'10' goes beyond the last layer, 9")));
  EXPECT_THAT([] { select_layers("8-10", ten_layers()); },
              ThrowsMessage<UsageError>(HasSubstr("beyond the last layer, 9")));
  EXPECT_THAT([] { select_layers("encoder.4", ten_layers()); },
              ThrowsMessage<UsageError>(HasSubstr("beyond the last layer, encoder.3")));
}

TEST(SelectLayersTest, names_near_stacks) {
  EXPECT_THAT(
      [] { select_layers("encodr.1", ten_layers()); },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("no stack 'encodr'"), HasSubstr("encoder"))));
}

TEST(SelectLayersTest, reports_all_problems_at_once) {
  EXPECT_THAT(
      [] { select_layers("3-1,77,up.0", ten_layers()); },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("'3-1'"), HasSubstr("'77'"), HasSubstr("'up.0'"))));
}

}  // namespace
}  // namespace moefy
