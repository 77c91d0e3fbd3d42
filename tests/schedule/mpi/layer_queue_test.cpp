#include "moefy/schedule/layer_queue.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>

#include "moefy/core/random.hpp"
#include "support/mpi_main.hpp"

namespace moefy {
namespace {

using test::world;

std::byte payload_byte(std::int64_t id, std::size_t i) {
  return static_cast<std::byte>((static_cast<std::size_t>(id) * 13 + i * 7 + i / 255) & 255U);
}

std::vector<std::byte> bytes_of(std::int64_t value) {
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::int64_t number_of(std::span<const std::byte> bytes) {
  std::int64_t value = -1;
  if (bytes.size() == sizeof value) std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

/// Waits for a stop request, as long work does that looks at its token.
void work_until_stopped(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait(lock, stop, [] { return false; });
  throw Interrupted("stopped");
}

struct Trial {
  std::map<std::int64_t, std::int64_t> committed;  ///< id to result; rank 0 only
  std::atomic<int> worked = 0;                     ///< on this rank
  std::atomic<bool> payload_intact = true;
  QueueCallbacks callbacks;

  explicit Trial(std::span<const QueueItem> items) {
    std::map<std::int64_t, std::size_t> sizes;
    for (const QueueItem& item : items) sizes[item.id] = item.payload_bytes;
    callbacks.load = [sizes](std::int64_t id, std::span<std::byte> payload) {
      ASSERT_EQ(payload.size(), sizes.at(id));
      for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = payload_byte(id, i);
    };
    callbacks.work = [this, sizes](std::int64_t id, std::span<const std::byte> payload,
                                   std::stop_token) {
      ++worked;
      bool intact = payload.size() == sizes.at(id);
      for (std::size_t i = 0; i < payload.size(); ++i) intact &= payload[i] == payload_byte(id, i);
      if (!intact) payload_intact = false;
      return bytes_of(id * id);
    };
    callbacks.commit = [this](std::int64_t id, int, std::vector<std::byte> result) {
      EXPECT_TRUE(committed.emplace(id, number_of(result)).second) << "item " << id << " twice";
    };
  }
};

std::vector<QueueItem> items_with_payloads(std::size_t count, std::uint64_t seed) {
  RandomStream random(seed, 0, RandomPurpose::bench);
  std::vector<QueueItem> items;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t payload = random.next_below(4) == 0 ? 0 : random.next_below(3000);
    items.push_back({static_cast<std::int64_t>(i) * 3, random.next_below(5), payload});
  }
  return items;
}

void expect_each_once(const Trial& run, std::span<const QueueItem> items) {
  EXPECT_TRUE(run.payload_intact);
  if (world().rank() != 0) return;
  EXPECT_EQ(run.committed.size(), items.size());
  for (const QueueItem& item : items) {
    const auto found = run.committed.find(item.id);
    ASSERT_NE(found, run.committed.end()) << item.id;
    EXPECT_EQ(found->second, item.id * item.id);
  }
}

class LayerQueueCountTest : public testing::TestWithParam<std::size_t> {};

TEST_P(LayerQueueCountTest, does_every_item_exactly_once) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    SCOPED_TRACE(seed);
    const auto items = items_with_payloads(GetParam(), seed);
    Trial run(items);

    const auto statistics = run_queue(world(), items, run.callbacks, {});

    expect_each_once(run, items);
    if (world().rank() == 0) {
      std::int64_t total = 0;
      for (const std::int64_t count : statistics.items_by_rank) total += count;
      EXPECT_EQ(total, static_cast<std::int64_t>(items.size()));
    }
  }
}

TEST_P(LayerQueueCountTest, does_items_without_payload) {
  std::vector<QueueItem> items;
  for (std::size_t i = 0; i < GetParam(); ++i)
    items.push_back({static_cast<std::int64_t>(i), i % 3, 0});
  Trial run(items);
  run.callbacks.load = [](std::int64_t, std::span<std::byte>) {
    ADD_FAILURE() << "nothing to load";
  };

  run_queue(world(), items, run.callbacks, {});

  expect_each_once(run, items);
}

INSTANTIATE_TEST_SUITE_P(Counts, LayerQueueCountTest, testing::Values(0, 1, 2, 3, 4, 5, 7, 40));

TEST(LayerQueueTest, carries_payloads_of_several_megabytes) {
  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < 6; ++id) {
    items.push_back({id, 1,
                     static_cast<std::uint64_t>(id) * test::kTestChunkBytes +
                         static_cast<std::uint64_t>(id % 2)});
  }
  Trial run(items);

  run_queue(world(), items, run.callbacks, {});

  expect_each_once(run, items);
}

TEST(LayerQueueTest, carries_results_of_several_megabytes) {
  const std::vector<QueueItem> items{{0, 1, 0}, {1, 1, 0}, {2, 1, 0}, {3, 1, 0}};
  Trial run(items);
  run.callbacks.work = [](std::int64_t id, std::span<const std::byte>, std::stop_token) {
    return std::vector<std::byte>(3 * test::kTestChunkBytes + 5, static_cast<std::byte>(id));
  };
  int right = 0;
  run.callbacks.commit = [&](std::int64_t id, int, std::vector<std::byte> result) {
    right +=
        result == std::vector<std::byte>(3 * test::kTestChunkBytes + 5, static_cast<std::byte>(id));
  };

  run_queue(world(), items, run.callbacks, {});

  EXPECT_EQ(right, world().rank() == 0 ? 4 : 0);
}

/// Every rank waits in its first item until all ranks have one: only true sharing gets through.
TEST(LayerQueueTest, gives_every_rank_an_item_when_there_are_as_many) {
  std::vector<QueueItem> items;
  for (int i = 0; i < world().size(); ++i) items.push_back({i, 1, 64});
  Trial run(items);

  run_queue(world(), items, run.callbacks, {});

  expect_each_once(run, items);
}

TEST(LayerQueueTest, loads_the_next_item_while_working_on_this_one) {
  const std::vector<QueueItem> items{{0, 9, 16}, {1, 8, 16}, {2, 7, 16}};
  if (world().size() > 1) GTEST_SKIP() << "the order of events is known for one rank";
  Trial run(items);
  std::mutex mutex;
  std::condition_variable wake;
  int loaded = 0;
  run.callbacks.load = [&](std::int64_t, std::span<std::byte>) {
    const std::lock_guard lock(mutex);
    ++loaded;
    wake.notify_all();
  };
  run.callbacks.work = [&](std::int64_t id, std::span<const std::byte>, std::stop_token) {
    // Hangs for ever if the next load does not happen meanwhile.
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return loaded >= std::min<int>(static_cast<int>(id) + 2, 3); });
    return bytes_of(id * id);
  };

  run_queue(world(), items, run.callbacks, {});

  EXPECT_EQ(loaded, 3);
  EXPECT_EQ(run.committed.size(), 3U);
}

TEST(LayerQueueTest, hands_a_worker_its_next_item_while_it_works) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  // Every rank's first item waits until all are loaded but those kept for idle ranks; with two
  // buffers on rank 0 that needs ranks to hold the next one while they work.
  const auto ranks = static_cast<std::size_t>(world().size());
  std::vector<QueueItem> items;
  for (std::size_t i = 0; i < 4 * ranks; ++i)
    items.push_back({static_cast<std::int64_t>(i), 1, 32});
  Trial run(items);
  std::mutex mutex;
  std::condition_variable wake;
  std::size_t loaded = 0;
  const auto load = run.callbacks.load;
  run.callbacks.load = [&](std::int64_t id, std::span<std::byte> payload) {
    load(id, payload);
    const std::lock_guard lock(mutex);
    ++loaded;
    wake.notify_all();
  };
  const auto work = run.callbacks.work;
  run.callbacks.work = [&](std::int64_t id, std::span<const std::byte> payload,
                           std::stop_token stop) {
    if (world().rank() == 0) {
      // One in work here, and the staged one; the others have one in work and one fetched.
      std::unique_lock lock(mutex);
      wake.wait(lock, [&] { return loaded >= 2 * ranks; });
    }
    return work(id, payload, stop);
  };

  run_queue(world(), items, run.callbacks, {});

  expect_each_once(run, items);
}

enum class Place { load, work, commit };

class LayerQueueErrorTest : public testing::TestWithParam<Place> {};

TEST_P(LayerQueueErrorTest, throws_the_same_class_on_all_ranks) {
  const auto items = items_with_payloads(20, 4);
  for (int failing = 0; failing < world().size(); ++failing) {
    SCOPED_TRACE(failing);
    Trial run(items);
    if (GetParam() == Place::load) {
      run.callbacks.load = [](std::int64_t, std::span<std::byte>) {
        throw InputError("bad shard");
      };
    } else if (GetParam() == Place::work) {
      run.callbacks.work = [&](std::int64_t, std::span<const std::byte>,
                               std::stop_token stop) -> std::vector<std::byte> {
        if (world().rank() == failing) throw InputError("bad layer");
        work_until_stopped(stop);
        return {};
      };
    } else {
      run.callbacks.commit = [](std::int64_t, int, std::vector<std::byte>) {
        throw InputError("full");
      };
    }

    EXPECT_THROW(run_queue(world(), items, run.callbacks, {}), InputError);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, LayerQueueErrorTest,
                         testing::Values(Place::load, Place::work, Place::commit));

TEST(LayerQueueTest, tells_unknown_exceptions_as_internal_errors) {
  const std::vector<QueueItem> items{{0, 1, 0}};
  Trial run(items);
  run.callbacks.work = [](std::int64_t, std::span<const std::byte>,
                          std::stop_token) -> std::vector<std::byte> {
    throw std::out_of_range("vector");
  };

  EXPECT_THROW(run_queue(world(), items, run.callbacks, {}), InternalError);
}

TEST(LayerQueueTest, stops_all_ranks_when_one_is_asked_to) {
  const auto items = items_with_payloads(20, 5);
  for (int asked = 0; asked < world().size(); ++asked) {
    SCOPED_TRACE(asked);
    Trial run(items);
    std::stop_source source;
    std::atomic<int> begun = 0;
    run.callbacks.work = [&](std::int64_t id, std::span<const std::byte>, std::stop_token stop) {
      // The first item of every rank is finished, the second never: the request comes in between.
      if (++begun == 2) {
        if (world().rank() == asked) source.request_stop();
        work_until_stopped(stop);
      }
      return bytes_of(id * id);
    };

    EXPECT_THROW(run_queue(world(), items, run.callbacks, source.get_token()), Interrupted);

    if (world().rank() == 0) {
      EXPECT_GE(run.committed.size(), 1U);
      EXPECT_LT(run.committed.size(), items.size());
    }
  }
}

TEST(LayerQueueTest, does_nothing_when_stopped_before) {
  const auto items = items_with_payloads(5, 6);
  Trial run(items);
  std::stop_source source;
  source.request_stop();

  EXPECT_THROW(run_queue(world(), items, run.callbacks, source.get_token()), Interrupted);

  EXPECT_TRUE(run.committed.empty());
}

TEST(LayerQueueTest, returns_normally_when_the_request_comes_after_the_last_commit) {
  const std::vector<QueueItem> items{{0, 1, 8}};
  Trial run(items);
  std::stop_source source;
  const auto commit = run.callbacks.commit;
  run.callbacks.commit = [&](std::int64_t id, int rank, std::vector<std::byte> result) {
    commit(id, rank, std::move(result));
    source.request_stop();
  };

  EXPECT_NO_THROW(run_queue(world(), items, run.callbacks, source.get_token()));
}

TEST(LayerQueueTest, refuses_items_that_differ_between_ranks) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  const std::vector<QueueItem> items{{world().rank(), 1, 8}};
  Trial run(items);

  EXPECT_THROW(run_queue(world(), items, run.callbacks, {}), InternalError);
}

TEST(LayerQueueTest, leaves_no_message_behind) {
  const auto items = items_with_payloads(9, 7);
  Trial run(items);

  run_queue(world(), items, run.callbacks, {});
  world().barrier();

  EXPECT_FALSE(world().poll().has_value());
  world().barrier();
}

}  // namespace
}  // namespace moefy
