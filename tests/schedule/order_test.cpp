#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/schedule/layer_queue.hpp"

namespace moefy {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(HeaviestFirstTest, orders_by_weight_then_by_id) {
  const std::vector<QueueItem> items{{4, 10, 0}, {3, 10, 0}, {9, 70, 0}, {1, 2, 0}};

  EXPECT_THAT(heaviest_first(items), ElementsAre(2, 1, 0, 3));
}

TEST(HeaviestFirstTest, has_nothing_to_order_in_nothing) {
  EXPECT_THAT(heaviest_first({}), IsEmpty());
}

TEST(QueueItemsTest, must_have_distinct_ids) {
  const auto comm = make_self_communicator();
  const std::vector<QueueItem> items{{4, 1, 0}, {4, 2, 0}};

  EXPECT_THROW(run_queue(*comm, items, {}, {}), InternalError);
}

}  // namespace
}  // namespace moefy
