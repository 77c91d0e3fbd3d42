#include "moefy/schedule/layer_queue.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "moefy/core/random.hpp"
#include "moefy/core/text.hpp"
#include "support/mpi_main.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

using test::world;

/// Small, so that most payloads are several pieces.
constexpr std::size_t kTestPieceBytes = 1000;

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
    callbacks.load = [sizes](std::int64_t id, std::uint64_t offset, std::span<std::byte> piece) {
      ASSERT_LE(offset + piece.size(), sizes.at(id));
      for (std::size_t i = 0; i < piece.size(); ++i) piece[i] = payload_byte(id, offset + i);
    };
    callbacks.work = [this, sizes](std::int64_t id, PayloadReader* payload, std::stop_token) {
      ++worked;
      const std::size_t size = sizes.at(id);
      const bool travelled = world().rank() > 0 && size > 0;
      if ((payload != nullptr) != travelled) payload_intact = false;
      if (!payload) return bytes_of(id * id);
      // In reads that begin and end anywhere in a piece; some items leave the rest unread.
      std::vector<std::byte> part;
      const std::size_t wanted = id % 7 == 5 ? size / 2 : size;
      for (std::size_t at = 0; at < wanted; at += part.size()) {
        part.resize(std::min<std::size_t>(wanted - at, 777));
        payload->read(part);
        for (std::size_t i = 0; i < part.size(); ++i)
          if (part[i] != payload_byte(id, at + i)) payload_intact = false;
      }
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

/// Moves the reading of payloads to `prepare`, whole; counts what is prepared and not yet worked
/// on.
struct PreparedTrial : Trial {
  std::mutex mutex;
  std::set<std::int64_t> prepared;
  std::size_t most_prepared = 0;

  explicit PreparedTrial(std::span<const QueueItem> items) : Trial(items) {
    std::map<std::int64_t, std::size_t> sizes;
    for (const QueueItem& item : items) sizes[item.id] = item.payload_bytes;
    callbacks.prepare = [this, sizes](std::int64_t id, PayloadReader* payload, std::stop_token) {
      if (payload) {
        std::vector<std::byte> all(sizes.at(id));
        payload->read(all);
        for (std::size_t i = 0; i < all.size(); ++i)
          if (all[i] != payload_byte(id, i)) payload_intact = false;
      }
      const std::lock_guard lock(mutex);
      prepared.insert(id);
      most_prepared = std::max(most_prepared, prepared.size());
    };
    callbacks.work = [this](std::int64_t id, PayloadReader* payload, std::stop_token) {
      ++worked;
      const std::lock_guard lock(mutex);
      if (payload != nullptr || prepared.erase(id) == 0) payload_intact = false;
      return bytes_of(id * id);
    };
  }
};

class LayerQueueCountTest : public testing::TestWithParam<std::size_t> {};

TEST_P(LayerQueueCountTest, does_every_item_exactly_once) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    SCOPED_TRACE(seed);
    const auto items = items_with_payloads(GetParam(), seed);
    Trial run(items);

    const auto statistics = run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

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
  run.callbacks.load = [](std::int64_t, std::uint64_t, std::span<std::byte>) {
    ADD_FAILURE() << "nothing to load";
  };

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  expect_each_once(run, items);
}

TEST_P(LayerQueueCountTest, prepares_every_item_before_the_work) {
  const auto items = items_with_payloads(GetParam(), 4);
  PreparedTrial run(items);

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  expect_each_once(run, items);
  EXPECT_LE(run.most_prepared, 2U);  // one that waits, and one whose work is about to begin
  EXPECT_TRUE(run.prepared.empty());
}

INSTANTIATE_TEST_SUITE_P(Counts, LayerQueueCountTest, testing::Values(0, 1, 2, 3, 4, 5, 7, 40));

TEST(LayerQueueTest, prepares_the_next_item_during_the_work) {
  if (world().size() > 1) GTEST_SKIP() << "needs one rank: who gets the next item is open";
  const std::vector<QueueItem> items{{0, 3, 0}, {1, 2, 0}, {2, 1, 0}};
  Trial run(items);
  std::mutex mutex;
  std::condition_variable change;
  std::int64_t last_prepared = -1;
  run.callbacks.prepare = [&](std::int64_t id, PayloadReader*, std::stop_token) {
    const std::lock_guard lock(mutex);
    last_prepared = id;
    change.notify_all();
  };
  run.callbacks.work = [&](std::int64_t id, PayloadReader*, std::stop_token) {
    std::unique_lock lock(mutex);  // waits for ever unless the next item is prepared meanwhile
    change.wait(lock, [&] { return last_prepared >= std::min<std::int64_t>(id + 1, 2); });
    return bytes_of(id * id);
  };

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  expect_each_once(run, items);
}

TEST(LayerQueueTest, ends_on_all_ranks_when_a_preparation_fails) {
  const auto items = items_with_payloads(12, 5);
  PreparedTrial run(items);
  const auto prepare = run.callbacks.prepare;
  run.callbacks.prepare = [&](std::int64_t id, PayloadReader* payload, std::stop_token stop) {
    if (id == 15) throw InputError("item 15 cannot be read");
    prepare(id, payload, stop);
  };

  EXPECT_THROW(run_queue(world(), items, run.callbacks, {}, kTestPieceBytes), InputError);

  EXPECT_TRUE(run.payload_intact);
}

TEST(LayerQueueTest, carries_payloads_of_several_megabytes) {
  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < 6; ++id) {
    items.push_back({id, 1,
                     static_cast<std::uint64_t>(id) * test::kTestChunkBytes +
                         static_cast<std::uint64_t>(id % 2)});
  }
  Trial run(items);

  run_queue(world(), items, run.callbacks, {}, 2 * test::kTestChunkBytes);

  expect_each_once(run, items);
}

TEST(LayerQueueTest, carries_results_of_several_megabytes) {
  const std::vector<QueueItem> items{{0, 1, 0}, {1, 1, 0}, {2, 1, 0}, {3, 1, 0}};
  Trial run(items);
  run.callbacks.work = [](std::int64_t id, PayloadReader*, std::stop_token) {
    return std::vector<std::byte>(3 * test::kTestChunkBytes + 5, static_cast<std::byte>(id));
  };
  int right = 0;
  run.callbacks.commit = [&](std::int64_t id, int, std::vector<std::byte> result) {
    right +=
        result == std::vector<std::byte>(3 * test::kTestChunkBytes + 5, static_cast<std::byte>(id));
  };

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  EXPECT_EQ(right, world().rank() == 0 ? 4 : 0);
}

/// Every rank waits in its first item until all ranks have one: only true sharing gets through.
TEST(LayerQueueTest, gives_every_rank_an_item_when_there_are_as_many) {
  std::vector<QueueItem> items;
  for (int i = 0; i < world().size(); ++i) items.push_back({i, 1, 64});
  Trial run(items);

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  expect_each_once(run, items);
}

TEST(LayerQueueTest, loads_nothing_for_itself) {
  if (world().size() > 1) GTEST_SKIP() << "needs one rank";
  const std::vector<QueueItem> items{{0, 9, 16}, {1, 8, 16}, {2, 7, 16}};
  Trial run(items);
  run.callbacks.load = [](std::int64_t, std::uint64_t, std::span<std::byte>) {
    ADD_FAILURE() << "rank 0 reads for itself";
  };

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  expect_each_once(run, items);
}

TEST(LayerQueueTest, sends_a_worker_its_next_item_while_it_works) {
  if (world().size() != 2) GTEST_SKIP() << "the order of events is known for two ranks";
  // Rank 0 stays in its first item until two payloads were fetched; the other rank stays in its
  // first until then, for it must not come to its second by itself.
  std::optional<test::TempDir> folder;
  std::vector<std::byte> place;
  if (world().rank() == 0) {
    folder.emplace();
    const std::string gate = (folder->path() / "gate").string();
    ASSERT_EQ(mkfifo(gate.c_str(), 0600), 0);
    place = to_bytes(gate);
  }
  world().broadcast(place);
  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < 8; ++id) items.push_back({id, 1, 2 * kTestPieceBytes});
  Trial run(items);
  std::mutex mutex;
  std::condition_variable wake;
  std::set<std::int64_t> loaded;
  const auto load = run.callbacks.load;
  run.callbacks.load = [&](std::int64_t id, std::uint64_t offset, std::span<std::byte> piece) {
    load(id, offset, piece);
    const std::lock_guard lock(mutex);
    loaded.insert(id);
    wake.notify_all();
  };
  const auto work = run.callbacks.work;
  bool first = true;
  run.callbacks.work = [&](std::int64_t id, PayloadReader* payload, std::stop_token stop) {
    auto result = work(id, payload, stop);
    if (std::exchange(first, false)) {
      if (world().rank() == 0) {
        // Hangs for ever if nothing is fetched ahead.
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return loaded.size() >= 2; });
        lock.unlock();
      }
      // Opening one end waits for the other.
      const int gate =
          open(to_text(place).c_str(), world().rank() == 0 ? O_WRONLY : O_RDONLY | O_CLOEXEC);
      EXPECT_GE(gate, 0);
      close(gate);
    }
    return result;
  };

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);

  expect_each_once(run, items);
}

TEST(LayerQueueTest, stops_a_rank_that_waits_for_its_payload) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < 8; ++id) items.push_back({id, 1, 5 * kTestPieceBytes});
  Trial run(items);
  std::stop_source source;
  run.callbacks.load = [&](std::int64_t, std::uint64_t, std::span<std::byte>) {
    source.request_stop();
  };
  const auto work = run.callbacks.work;
  run.callbacks.work = [&](std::int64_t id, PayloadReader* payload, std::stop_token stop) {
    if (world().rank() == 0) work_until_stopped(stop);
    return work(id, payload, stop);
  };

  EXPECT_THROW(run_queue(world(), items, run.callbacks, source.get_token(), kTestPieceBytes),
               Interrupted);
}

enum class Place { load, work, commit };

class LayerQueueErrorTest : public testing::TestWithParam<Place> {};

TEST_P(LayerQueueErrorTest, throws_the_same_class_on_all_ranks) {
  if (GetParam() == Place::load && world().size() == 1) GTEST_SKIP() << "nothing is loaded";
  const auto items = items_with_payloads(20, 4);
  for (int failing = 0; failing < world().size(); ++failing) {
    SCOPED_TRACE(failing);
    Trial run(items);
    if (GetParam() == Place::load) {
      run.callbacks.load = [](std::int64_t, std::uint64_t, std::span<std::byte>) {
        throw InputError("bad shard");
      };
      // Nothing is loaded for rank 0, and it must not do all the items alone.
      const auto work = run.callbacks.work;
      run.callbacks.work = [work](std::int64_t id, PayloadReader* payload, std::stop_token stop) {
        if (world().rank() == 0) work_until_stopped(stop);
        return work(id, payload, stop);
      };
    } else if (GetParam() == Place::work) {
      run.callbacks.work = [&](std::int64_t, PayloadReader*,
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
  run.callbacks.work = [](std::int64_t, PayloadReader*, std::stop_token) -> std::vector<std::byte> {
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
    run.callbacks.work = [&](std::int64_t id, PayloadReader*, std::stop_token stop) {
      // The first item of every rank is finished, the second never: the request comes in between.
      if (++begun == 2) {
        if (world().rank() == asked) source.request_stop();
        work_until_stopped(stop);
      }
      return bytes_of(id * id);
    };

    EXPECT_THROW(run_queue(world(), items, run.callbacks, source.get_token(), kTestPieceBytes),
                 Interrupted);

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

  EXPECT_THROW(run_queue(world(), items, run.callbacks, source.get_token(), kTestPieceBytes),
               Interrupted);

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

  EXPECT_NO_THROW(run_queue(world(), items, run.callbacks, source.get_token(), kTestPieceBytes));
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

  run_queue(world(), items, run.callbacks, {}, kTestPieceBytes);
  world().barrier();

  EXPECT_FALSE(world().poll().has_value());
  world().barrier();
}

}  // namespace
}  // namespace moefy
