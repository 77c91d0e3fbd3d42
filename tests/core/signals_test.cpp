#include "moefy/core/signals.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace moefy {
namespace {

/// Returns when a stop is requested.
void await(const std::stop_token& token) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait(lock, token, [] { return false; });
}

struct Case {
  int signal;
  const char* name;
};

class SignalGuardTest : public testing::TestWithParam<Case> {};

TEST_P(SignalGuardTest, turns_a_signal_into_a_stop_request) {
  const SignalGuard guard;
  EXPECT_FALSE(guard.token().stop_requested());
  EXPECT_EQ(guard.cause(), "");

  kill(getpid(), GetParam().signal);
  await(guard.token());

  EXPECT_EQ(guard.cause(), GetParam().name);
}

INSTANTIATE_TEST_SUITE_P(Signals, SignalGuardTest,
                         testing::Values(Case{SIGINT, "SIGINT"}, Case{SIGTERM, "SIGTERM"},
                                         Case{SIGUSR1, "SIGUSR1"}));

TEST(SignalGuardLauncherTest, knows_the_signals_of_a_launcher_that_ends_the_job) {
  const SignalGuard guard;

  kill(getpid(), SIGCONT);

  while (!launcher_may_be_ending_us()) std::this_thread::yield();
  EXPECT_FALSE(guard.token().stop_requested());
}

/// Without a guard that reaches them, the signal would end the test program.
TEST(SignalGuardThreadTest, takes_signals_that_reach_threads_older_than_itself) {
  std::stop_source end;
  std::jthread older([token = end.get_token()] { await(token); });
  {
    const SignalGuard guard;

    pthread_kill(older.native_handle(), SIGTERM);
    await(guard.token());

    EXPECT_EQ(guard.cause(), "SIGTERM");
  }
  end.request_stop();
}

TEST(SignalGuardWallTest, requests_the_stop_when_the_wall_time_is_nearly_over) {
  const SignalGuard guard(std::chrono::duration<double>(0.001));

  await(guard.token());

  EXPECT_EQ(guard.cause(), "wall time");
}

TEST(SignalGuardWallTest, takes_a_century_as_for_ever) {
  const SignalGuard guard(std::chrono::duration<double>(1e300));

  EXPECT_FALSE(guard.token().stop_requested());
}

TEST(SignalGuardWallTest, gives_the_signal_mask_back) {
  sigset_t mask;
  { const SignalGuard guard; }

  pthread_sigmask(SIG_SETMASK, nullptr, &mask);

  EXPECT_EQ(sigismember(&mask, SIGINT), 0);
}

/// In a process of its own: signals `first` and then `second`, and waits to be ended.
void send_two(int first, int second) {
  const SignalGuard guard;
  kill(getpid(), first);
  await(guard.token());
  kill(getpid(), second);
  for (;;) pause();
}

TEST(SignalGuardDeathTest, leaves_at_once_on_a_second_signal) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(send_two(SIGINT, SIGINT), testing::ExitedWithCode(130), "exit 130");
  EXPECT_EXIT(send_two(SIGUSR1, SIGTERM), testing::ExitedWithCode(143), "exit 143");
}

[[noreturn]] void leave_with_75_despite_a_second_signal() {
  {
    SignalGuard guard;
    kill(getpid(), SIGUSR1);
    await(guard.token());
    guard.ignore_further_signals();
    kill(getpid(), SIGTERM);
  }
  _exit(75);
}

TEST(SignalGuardDeathTest, keeps_the_outcome_once_further_signals_are_ignored) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(leave_with_75_despite_a_second_signal(), testing::ExitedWithCode(75), "^$");
}

}  // namespace
}  // namespace moefy
