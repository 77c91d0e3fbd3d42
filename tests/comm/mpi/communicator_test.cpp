#include "moefy/comm/communicator.hpp"

#include <fcntl.h>
#include <semaphore.h>
#include <unistd.h>

#include <numeric>
#include <stdexcept>
#include <string>

#include "support/mpi_main.hpp"

namespace moefy {
namespace {

using test::world;

/// Bytes that differ from rank to rank and from place to place.
std::vector<std::byte> pattern(std::size_t size, int seed) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] =
        static_cast<std::byte>((i * 31 + i / 251 + static_cast<std::size_t>(seed) * 7) & 255U);
  }
  return bytes;
}

std::vector<Communicator::Message> receive(std::size_t count) {
  std::vector<Communicator::Message> messages;
  while (messages.size() < count) {
    if (auto message = world().poll()) messages.push_back(std::move(*message));
  }
  return messages;
}

TEST(CommunicatorTest, gather_gives_root_everyones_bytes_by_rank) {
  const int last = world().size() - 1;

  const auto all =
      world().gather(pattern(static_cast<std::size_t>(world().rank()) * 10, world().rank()), last);

  if (world().rank() != last) {
    EXPECT_TRUE(all.empty());
    return;
  }
  ASSERT_EQ(all.size(), static_cast<std::size_t>(world().size()));
  for (int rank = 0; rank <= last; ++rank) {
    EXPECT_EQ(all[static_cast<std::size_t>(rank)],
              pattern(static_cast<std::size_t>(rank) * 10, rank));
  }
}

TEST(CommunicatorTest, gather_carries_more_than_one_chunk) {
  const std::size_t size = 2 * test::kTestChunkBytes + 17;

  const auto all = world().gather(pattern(size, world().rank()));

  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    EXPECT_TRUE(all[rank] == pattern(size, static_cast<int>(rank))) << rank;
  }
}

TEST(CommunicatorTest, broadcast_gives_everyone_the_roots_bytes) {
  const int last = world().size() - 1;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{5}, test::kTestChunkBytes, 3 * test::kTestChunkBytes + 1}) {
    SCOPED_TRACE(size);
    std::vector<std::byte> bytes;
    if (world().rank() == last) bytes = pattern(size, 42);

    world().broadcast(bytes, last);

    EXPECT_TRUE(bytes == pattern(size, 42));
  }
}

TEST(CommunicatorTest, messages_keep_their_order_whatever_their_size) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  const std::vector<std::size_t> sizes{3, 2 * test::kTestChunkBytes + 5, 0, test::kTestChunkBytes,
                                       7};
  world().barrier();
  if (world().rank() == 1) {
    for (std::size_t i = 0; i < sizes.size(); ++i)
      world().post(0, 5, pattern(sizes[i], static_cast<int>(i)));
  }

  const auto messages = world().rank() == 0 ? receive(sizes.size()) : receive(0);

  for (std::size_t i = 0; i < messages.size(); ++i) {
    EXPECT_EQ(messages[i].source, 1);
    EXPECT_EQ(messages[i].tag, 5);
    EXPECT_TRUE(messages[i].bytes == pattern(sizes[i], static_cast<int>(i))) << i;
  }
  world().flush();
}

/// Lets one rank of this job wait for another without MPI, which would move messages meanwhile.
class Gate {
 public:
  explicit Gate(const std::string& name)
      : name_("/moefy-" + name + "-" + std::to_string(getppid())),
        semaphore_(sem_open(name_.c_str(), O_CREAT, 0600, 0)) {
    if (semaphore_ == SEM_FAILED) throw std::runtime_error("no semaphore " + name_);
  }
  ~Gate() {
    sem_close(semaphore_);
    sem_unlink(name_.c_str());
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() { sem_post(semaphore_); }
  void wait() {
    while (sem_wait(semaphore_) != 0) {
    }
  }

 private:
  std::string name_;
  sem_t* semaphore_;
};

TEST(CommunicatorTest, a_message_that_is_held_up_holds_up_those_of_no_other_rank) {
  if (world().size() < 3) GTEST_SKIP() << "needs three ranks";
  const std::size_t size = test::kTestChunkBytes / 2;  // more than goes out unasked
  Gate announced("announced");
  Gate heard("heard");
  world().barrier();
  if (world().rank() == 2) {
    world().post(0, 5, pattern(size, 2));
    announced.open();
    heard.wait();
  } else if (world().rank() == 1) {
    receive(1);
    world().post(0, 5, pattern(3, 1));
  } else {
    announced.wait();
    EXPECT_FALSE(world().poll().has_value());
    world().post(1, 5, {});

    const auto first = receive(1);

    EXPECT_EQ(first[0].source, 1);
    heard.open();
    const auto second = receive(1);
    EXPECT_EQ(second[0].source, 2);
    EXPECT_TRUE(second[0].bytes == pattern(size, 2));
  }
  world().flush();
  world().barrier();
}

TEST(CommunicatorTest, messages_from_all_ranks_arrive_whole) {
  const std::size_t size = 3 * test::kTestChunkBytes / 2;
  if (world().rank() > 0) world().post(0, 9, pattern(size, world().rank()));

  const auto messages =
      receive(world().rank() == 0 ? static_cast<std::size_t>(world().size()) - 1 : 0);

  for (const auto& message : messages) {
    EXPECT_TRUE(message.bytes == pattern(size, message.source));
  }
  world().flush();
  world().barrier();
}

TEST(CommunicatorTest, bulk_fills_the_receivers_memory_and_may_be_shorter) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  const std::size_t chunk = test::kTestChunkBytes;
  const std::vector<std::pair<std::size_t, std::size_t>> sent_and_room{{0, 0},
                                                                       {0, 100},
                                                                       {chunk - 1, chunk - 1},
                                                                       {chunk, chunk},
                                                                       {chunk, 3 * chunk},
                                                                       {2 * chunk + 9, 3 * chunk},
                                                                       {4 * chunk, 4 * chunk}};
  for (const auto& [sent, room] : sent_and_room) {
    SCOPED_TRACE(testing::Message() << sent << " bytes into " << room);
    std::vector<std::byte> memory(room + 1, std::byte{0xA5});
    const auto data = pattern(sent, 3);
    std::size_t handle = 0;
    if (world().rank() == 1) handle = world().receive_into(0, std::span(memory).first(room));
    world().barrier();
    if (world().rank() == 0) handle = world().send_from(1, data);

    if (world().rank() < 2) {
      while (!world().bulk_done(handle)) {
      }
    }

    if (world().rank() == 1) {
      EXPECT_TRUE(std::equal(data.begin(), data.end(), memory.begin()));
      EXPECT_EQ(memory[sent], std::byte{0xA5});
    }
    world().barrier();
  }
}

TEST(CommunicatorTest, splits_into_parts_that_know_their_ranks_in_the_job) {
  const auto part = world().split(world().rank() % 2);

  ASSERT_EQ(part->size(), (world().size() + 1 - world().rank() % 2) / 2);
  EXPECT_EQ(part->rank(), world().rank() / 2);
  EXPECT_EQ(part->job_size(), world().size());
  for (int rank = 0; rank < part->size(); ++rank) {
    EXPECT_EQ(part->job_rank(rank), 2 * rank + world().rank() % 2);
  }
  const auto all = part->gather(pattern(10, world().rank()));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    EXPECT_EQ(all[rank], pattern(10, part->job_rank(static_cast<int>(rank))));
  }
}

TEST(CommunicatorTest, parts_do_not_hear_each_others_messages) {
  const auto whole = world().split(0);
  const int last = world().size() - 1;
  if (world().rank() == 0 && last > 0) {
    whole->post(last, 3, pattern(10, 1));
    world().post(last, 4, pattern(20, 2));
  }
  if (world().rank() == last && last > 0) {
    const auto message = receive(1);
    EXPECT_EQ(message[0].tag, 4);
    std::optional<Communicator::Message> other;
    while (!other) other = whole->poll();
    EXPECT_EQ(other->tag, 3);
    EXPECT_EQ(other->bytes, pattern(10, 1));
  }
  whole->flush();
  world().flush();
}

TEST(AllOkTest, throws_the_same_class_and_message_on_every_rank) {
  for (int failing = 0; failing < world().size(); ++failing) {
    SCOPED_TRACE(failing);
    std::string message;

    try {
      together(world(), [&] {
        if (world().rank() == failing) throw InputError("layer 3 is bad");
      });
    } catch (const InputError& error) {
      message = error.what();
    }

    EXPECT_NE(message.find("layer 3 is bad"), std::string::npos) << message;
    if (world().size() > 1) {
      EXPECT_EQ(message.find("[rank " + std::to_string(failing) + " on "), 0U) << message;
    }
  }
}

TEST(AllOkTest, prefers_an_error_to_an_interruption_and_then_the_lowest_rank) {
  if (world().size() < 3) GTEST_SKIP() << "needs three ranks";
  EXPECT_THROW(together(world(),
                        [&] {
                          if (world().rank() == 0) throw Interrupted("asked to stop");
                          if (world().rank() == 1) throw IoError("disk is full");
                          throw InputError("too late");
                        }),
               IoError);
}

TEST(AllOkTest, names_the_rank_only_once) {
  try {
    together(world(), [&] { together(world(), [&] { throw IoError("disk is full"); }); });
  } catch (const IoError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find("[rank", 1), std::string::npos) << message;
    return;
  }
  ADD_FAILURE() << "nothing was thrown";
}

TEST(AllOkTest, is_silent_when_nobody_failed) {
  EXPECT_NO_THROW(together(world(), [] {}));
}

TEST(LaunchTest, detects_this_launch) {
  const LaunchInfo info = detect_launch(process_environment());

  EXPECT_EQ(info.rank, world().rank());
  EXPECT_EQ(info.size, world().size());
  EXPECT_NO_THROW(require_launched_size(info, world()));
}

TEST(LaunchTest, refuses_more_processes_than_mpi_sees) {
  LaunchInfo info;
  info.size = world().size() + 1;

  EXPECT_THROW(require_launched_size(info, world()), UsageError);
}

}  // namespace
}  // namespace moefy
