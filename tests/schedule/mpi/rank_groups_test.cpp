#include "moefy/schedule/rank_groups.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>

#include "moefy/core/text.hpp"
#include "support/mpi_main.hpp"

namespace moefy {
namespace {

using test::world;

/// Groups of `size` ranks; of every group its leader.
struct Groups {
  explicit Groups(int size)
      : group(world().split(world().rank() / size)), leads(group->rank() == 0) {
    leaders = world().split(leads ? 0 : 1);
  }
  std::unique_ptr<Communicator> group;
  std::unique_ptr<Communicator> leaders;  ///< of other ranks: themselves
  bool leads;
};

/// Sum of the numbers of an order, times the rank's number in its group plus 1.
OrderHandler summing(int rank) {
  return [rank](MessageReader& order, MessageWriter& answer) {
    const auto numbers = order.next_all<std::int64_t>();
    answer.add(std::accumulate(numbers.begin(), numbers.end(), std::int64_t{0}) * (rank + 1));
  };
}

MessageWriter numbers_up_to(std::int64_t last) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(last));
  std::iota(numbers.begin(), numbers.end(), 1);
  MessageWriter order;
  order.add_all(numbers);
  return order;
}

/// Runs a queue of `count` items between the leaders of `groups`, whose members follow `handler`;
/// `work` makes the result of an item. What rank 0 committed; throws what the queue throws.
std::map<std::int64_t, std::string> run_groups(
    Groups& groups, std::int64_t count, const OrderHandler& handler,
    const std::function<std::string(std::int64_t id, GroupOrders& orders)>& work,
    std::stop_token stop = {}, std::stop_source ended = {}) {
  if (!groups.leads) {
    if (const auto error = serve_group(*groups.group, handler, stop, ended))
      throw_error(error->code, error->message);
    return {};
  }
  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < count; ++id) items.push_back({id, 1, 0});
  std::map<std::int64_t, std::string> committed;
  std::stop_source stop_all;
  const std::stop_callback forward(stop, [&] { stop_all.request_stop(); });
  GroupLeader leader(*groups.group, stop_all);
  GroupOrders orders(leader, handler);
  QueueCallbacks callbacks;
  callbacks.companion = &leader;
  callbacks.work = [&](std::int64_t id, PayloadReader*, std::stop_token stop_work) {
    leader.stop_with(stop_work);
    return to_bytes(work(id, orders));
  };
  callbacks.commit = [&](std::int64_t id, int, const std::vector<std::byte>& bytes) {
    committed.emplace(id, to_text(bytes));
  };
  std::optional<RankError> error;
  try {
    run_queue(*groups.leaders, items, callbacks, stop_all.get_token());
  } catch (const Error& failure) {
    error = RankError{failure.code(), failure.what(), 0};
  }
  leader.finish(error);
  if (error) throw_error(error->code, error->message);
  return committed;
}

Orders to_all(const GroupOrders& orders, std::int64_t last) {
  return orders.orders([](std::size_t) { return true; },
                       [&](std::size_t) { return numbers_up_to(last); });
}

TEST(RankGroupsTest, members_answer_the_leader_of_every_group) {
  for (const int size : {1, 2, 3}) {
    Groups groups(size);
    constexpr std::int64_t kItems = 5;
    const auto committed = run_groups(
        groups, kItems, summing(groups.group->rank()), [](std::int64_t id, auto& orders) {
          std::string text;
          for (int round = 0; round < 20; ++round) {
            std::int64_t sum = 0;
            for (auto& answer : orders.ask(to_all(orders, id + round)))
              sum += answer->template next<std::int64_t>();
            const auto n = static_cast<std::int64_t>(orders.size());
            const std::int64_t last = id + round;
            if (sum != last * (last + 1) / 2 * (n * (n + 1) / 2)) text += "wrong ";
          }
          return text + std::to_string(id);
        });
    if (world().rank() == 0) {
      ASSERT_EQ(committed.size(), static_cast<std::size_t>(kItems));
      for (const auto& [id, text] : committed) EXPECT_EQ(text, std::to_string(id));
    }
  }
}

TEST(RankGroupsTest, large_messages_arrive_whole) {
  Groups groups(world().size());
  const auto committed =
      run_groups(groups, 1, summing(groups.group->rank()), [](std::int64_t, auto& orders) {
        constexpr std::int64_t kLast = 400'000;  // several chunks
        std::int64_t wrong = 0;
        std::int64_t member = 0;
        for (auto& answer : orders.ask(to_all(orders, kLast))) {
          ++member;
          if (answer->template next<std::int64_t>() != kLast * (kLast + 1) / 2 * member) ++wrong;
        }
        return std::to_string(wrong);
      });
  if (world().rank() == 0) {
    EXPECT_EQ(committed.at(0), "0");
  }
}

TEST(RankGroupsTest, an_error_of_a_member_ends_all_with_its_class_and_place) {
  Groups groups(world().size());
  const int last = groups.group->size() - 1;
  const OrderHandler failing = [&](MessageReader&, MessageWriter&) {
    if (groups.group->rank() == last) throw IoError("no such thing");
  };
  try {
    run_groups(groups, 3, failing, [](std::int64_t, auto& orders) {
      orders.tell(to_all(orders, 1));
      orders.tell(to_all(orders, 1));
      orders.ask(to_all(orders, 1));
      return std::string();
    });
    FAIL() << "nothing was thrown on rank " << world().rank();
  } catch (const IoError& error) {
    const std::string place = "[rank " + std::to_string(last) + " on ";
    EXPECT_NE(std::string(error.what()).find("no such thing"), std::string::npos) << error.what();
    EXPECT_TRUE(last == 0 || std::string(error.what()).find(place) != std::string::npos);
  }
}

TEST(RankGroupsTest, a_joint_order_is_carried_out_by_all_at_once) {
  Groups groups(world().size());
  std::atomic<int> carried_out = 0;
  const OrderHandler counting = [&](MessageReader&, MessageWriter&) { ++carried_out; };
  run_groups(groups, 2, counting, [](std::int64_t, GroupOrders& orders) {
    int looks = 0;
    for (int round = 0; round < 5; ++round)
      orders.ask_jointly(to_all(orders, 1), [&] { return ++looks % 3 == 0; });
    return std::string();
  });
  EXPECT_EQ(carried_out, 2 * 5);
}

TEST(RankGroupsTest, members_that_wait_for_one_that_failed_hear_of_the_end) {
  Groups groups(world().size());
  const int rank = groups.group->rank();
  const int last = groups.group->size() - 1;
  if (last == 0) return;
  std::stop_source ended;
  const OrderHandler waiting = [&](MessageReader&, MessageWriter&) {
    if (rank == last) throw CommError("no such peer");
    if (rank == 0) return;  // the leader looks after its part by itself
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any never;
    never.wait(lock, ended.get_token(), [] { return false; });
    throw Interrupted("left");
  };
  try {
    run_groups(
        groups, 3, waiting,
        [](std::int64_t, GroupOrders& orders) {
          orders.ask_jointly(to_all(orders, 1), [] { return false; });
          return std::string();
        },
        {}, ended);
    FAIL() << "nothing was thrown on rank " << world().rank();
  } catch (const CommError& error) {
    const std::string place = "[rank " + std::to_string(last) + " on ";
    EXPECT_NE(std::string(error.what()).find(place), std::string::npos) << error.what();
  }
}

TEST(RankGroupsTest, a_member_that_is_told_to_stop_stops_all) {
  Groups groups(world().size());
  std::stop_source stop;
  const OrderHandler stopping = [&](MessageReader&, MessageWriter&) {
    if (world().rank() == world().size() - 1) stop.request_stop();
  };
  const auto work_until_stopped = [&](std::int64_t, GroupOrders& orders) -> std::string {
    // Alone, nothing but this rank's own token tells it to stop.
    while (orders.size() > 1 || !stop.stop_requested()) orders.ask(to_all(orders, 1));
    throw Interrupted("stopped");
  };
  EXPECT_THROW(run_groups(groups, 3, stopping, work_until_stopped, stop.get_token()), Interrupted);
}

}  // namespace
}  // namespace moefy
