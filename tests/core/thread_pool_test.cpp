#include "moefy/core/thread_pool.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace moefy {
namespace {

class ThreadPoolTest : public testing::TestWithParam<std::size_t> {};

TEST_P(ThreadPoolTest, runs_every_iteration_once) {
  ThreadPool pool(GetParam());
  for (const std::size_t count : {0u, 1u, 2u, 1000u}) {
    std::vector<std::atomic<int>> runs(count);

    pool.for_each(count, [&](std::size_t i) { ++runs[i]; });

    for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(runs[i], 1) << i << " of " << count;
  }
}

TEST_P(ThreadPoolTest, rethrows_the_failure_of_the_lowest_index_and_stays_usable) {
  ThreadPool pool(GetParam());

  try {
    pool.for_each(100, [](std::size_t i) {
      if (i >= 40 && i % 2 == 0) throw std::runtime_error(std::to_string(i));
    });
    FAIL() << "no exception";
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(std::string(error.what()), "40");
  }

  std::atomic<int> runs = 0;
  pool.for_each(10, [&](std::size_t) { ++runs; });
  EXPECT_EQ(runs, 10);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace moefy
