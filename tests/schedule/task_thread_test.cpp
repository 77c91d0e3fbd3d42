#include "../../src/schedule/task_thread.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

std::exception_ptr outcome_of(TaskThread& thread, Doorbell& doorbell) {
  for (;;) {
    if (auto outcome = thread.take_outcome()) return *outcome;
    doorbell.wait();
  }
}

TEST(TaskThreadTest, runs_one_task_after_the_other) {
  Doorbell doorbell;
  TaskThread thread(doorbell);
  int value = 0;

  for (int i = 0; i < 100; ++i) {
    thread.start([&] { ++value; });
    EXPECT_TRUE(thread.busy());
    EXPECT_FALSE(outcome_of(thread, doorbell));
    EXPECT_FALSE(thread.busy());
  }

  EXPECT_EQ(value, 100);
}

TEST(TaskThreadTest, hands_exceptions_over) {
  Doorbell doorbell;
  TaskThread thread(doorbell);

  thread.start([] { throw std::runtime_error("no"); });

  EXPECT_THROW(std::rethrow_exception(outcome_of(thread, doorbell)), std::runtime_error);
}

TEST(TaskThreadTest, refuses_a_second_task) {
  Doorbell doorbell;
  TaskThread thread(doorbell);
  thread.start([] {});

  EXPECT_THROW(thread.start([] {}), InternalError);
}

TEST(TaskThreadTest, finishes_its_task_when_destroyed) {
  Doorbell doorbell;
  bool done = false;

  {
    TaskThread thread(doorbell);
    thread.start([&] { done = true; });
  }

  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace moefy
