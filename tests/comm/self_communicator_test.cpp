#include <gtest/gtest.h>

#include "moefy/comm/communicator.hpp"
#include "moefy/comm/waiting.hpp"

namespace moefy {
namespace {

TEST(SelfCommunicatorTest, gathers_its_own_bytes) {
  const auto comm = make_self_communicator();
  const std::vector<std::byte> bytes{std::byte{1}, std::byte{2}};

  const auto all = comm->gather(bytes);

  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0], bytes);
}

TEST(SelfCommunicatorTest, receives_what_it_posts_in_order) {
  const auto comm = make_self_communicator();
  comm->post(0, 3, {std::byte{1}});
  comm->post(0, 4, {});

  const auto first = comm->poll();
  const auto second = comm->poll();

  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->tag, 3);
  EXPECT_EQ(first->bytes, std::vector{std::byte{1}});
  EXPECT_EQ(second->tag, 4);
  EXPECT_FALSE(comm->poll());
}

TEST(SelfCommunicatorTest, has_no_peer_for_bulk) {
  const auto comm = make_self_communicator();

  EXPECT_THROW(comm->send_from(0, {}), InternalError);
}

TEST(SelfCommunicatorTest, rethrows_errors_without_naming_a_rank) {
  const auto comm = make_self_communicator();

  try {
    together(*comm, [] { throw IoError("disk is full"); });
    FAIL() << "nothing was thrown";
  } catch (const IoError& error) {
    EXPECT_STREQ(error.what(), "disk is full");
  }
}

TEST(SelfCommunicatorTest, aborts_with_the_code_as_last_line) {
  const auto comm = make_self_communicator();

  EXPECT_EXIT(comm->abort(ExitCode::comm, "lost"), testing::ExitedWithCode(5),
              "moefy: lost\nmoefy: exit 5 \\(communication\\)\n$");
}

TEST(BackoffTest, doubles_up_to_a_millisecond) {
  Backoff backoff;
  auto last = backoff.next();
  EXPECT_EQ(last, Backoff::kShortest);

  for (int i = 0; i < 20; ++i) last = backoff.next();

  EXPECT_EQ(last, Backoff::kLongest);
  backoff.reset();
  EXPECT_EQ(backoff.next(), Backoff::kShortest);
}

TEST(WatchClockTest, counts_a_long_gap_as_one_second) {
  using namespace std::chrono_literals;
  const WatchClock::TimePoint start{};
  WatchClock clock(start);

  EXPECT_EQ(clock.look(start + 10ms), 10ms);
  EXPECT_EQ(clock.look(start + 1h), 1010ms);
  EXPECT_EQ(clock.look(start + 1h + 500ms), 1510ms);
}

}  // namespace
}  // namespace moefy
