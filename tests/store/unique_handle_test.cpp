#include "unique_handle.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace moefy {
namespace {

std::vector<int> closed;

struct CountingTraits {
  static constexpr int kNone = -1;
  static bool is_open(int handle) { return handle >= 0; }
  static void close(int handle) noexcept { closed.push_back(handle); }
};
using Handle = UniqueHandle<int, CountingTraits>;

class UniqueHandleTest : public testing::Test {
 protected:
  void SetUp() override { closed.clear(); }
};

TEST_F(UniqueHandleTest, closes_once_at_the_end) {
  { const Handle handle(3); }

  EXPECT_EQ(closed, std::vector<int>{3});
}

TEST_F(UniqueHandleTest, closes_nothing_when_empty) {
  { const Handle handle; }

  EXPECT_TRUE(closed.empty());
}

TEST_F(UniqueHandleTest, closes_nothing_after_it_was_moved_from) {
  {
    Handle first(4);
    const Handle second(std::move(first));
    EXPECT_EQ(second.get(), 4);
  }

  EXPECT_EQ(closed, std::vector<int>{4});
}

TEST_F(UniqueHandleTest, closes_the_old_one_once_when_assigned) {
  {
    Handle first(5);
    first = Handle(6);
    EXPECT_EQ(closed, std::vector<int>{5});
  }

  EXPECT_EQ(closed, (std::vector<int>{5, 6}));
}

TEST_F(UniqueHandleTest, survives_assignment_to_itself) {
  {
    Handle handle(7);
    Handle& same = handle;
    handle = std::move(same);
    EXPECT_EQ(handle.get(), 7);
  }

  EXPECT_EQ(closed, std::vector<int>{7});
}

}  // namespace
}  // namespace moefy
