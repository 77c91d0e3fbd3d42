#include "moefy/core/rank_group.hpp"

#include <gtest/gtest.h>

#include "support/direct_group.hpp"

namespace moefy {
namespace {

TEST(MessageTest, gives_back_what_was_written) {
  MessageWriter writer;
  writer.add(true);
  writer.add_all(std::vector<double>{1.5, -2});
  writer.add_text("three");
  writer.add_all(std::vector<std::int64_t>{});
  writer.add(std::int16_t{4});

  MessageReader reader(writer.take());

  EXPECT_TRUE(reader.next<bool>());
  const auto numbers = reader.next_all<double>();
  ASSERT_EQ(numbers.size(), 2U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(numbers.data()) % kMessageAlignment, 0U);
  EXPECT_EQ(numbers[0], 1.5);
  EXPECT_EQ(numbers[1], -2);
  EXPECT_EQ(reader.next_text(), "three");
  EXPECT_TRUE(reader.next_all<std::int64_t>().empty());
  EXPECT_EQ(reader.next<std::int16_t>(), 4);
}

TEST(MessageTest, refuses_to_read_beyond_its_end) {
  MessageWriter writer;
  writer.add(std::size_t{1000});
  MessageReader reader(writer.take());
  EXPECT_THROW(reader.next_all<double>(), InternalError);

  MessageReader empty({});
  EXPECT_THROW(empty.next<int>(), InternalError);
}

using test::DirectGroup;

OrderHandler adding(int number, int& carried_out) {
  return [number, &carried_out](MessageReader& order, MessageWriter& answer) {
    ++carried_out;
    const int value = order.next<int>();
    if (value < 0) throw InputError("negative");
    answer.add(value + number);
  };
}

Orders number_for_all(const GroupOrders& orders, int value) {
  return orders.orders([](std::size_t) { return true; },
                       [&](std::size_t) {
                         MessageWriter order;
                         order.add(value);
                         return order;
                       });
}

TEST(GroupOrdersTest, answers_come_by_member_from_those_that_were_asked) {
  int carried_out = 0;
  DirectGroup group({adding(10, carried_out), adding(20, carried_out)});
  GroupOrders orders(group, adding(0, carried_out));

  auto answers = orders.ask(number_for_all(orders, 5));
  ASSERT_EQ(answers.size(), 3U);
  EXPECT_EQ(answers[0]->next<int>(), 5);
  EXPECT_EQ(answers[1]->next<int>(), 15);
  EXPECT_EQ(answers[2]->next<int>(), 25);

  Orders some = number_for_all(orders, 1);
  some[0].reset();
  some[1].reset();
  answers = orders.ask(std::move(some));
  EXPECT_FALSE(answers[0]);
  EXPECT_FALSE(answers[1]);
  EXPECT_EQ(answers[2]->next<int>(), 21);
  EXPECT_EQ(carried_out, 4);
}

TEST(GroupOrdersTest, a_failure_is_thrown_by_the_next_question_and_stops_what_comes_before_it) {
  int carried_out = 0;
  int own = 0;
  DirectGroup group({adding(10, carried_out)});
  GroupOrders orders(group, [&](MessageReader&, MessageWriter&) { ++own; });

  orders.tell(number_for_all(orders, -1));
  orders.tell(number_for_all(orders, 2));
  try {
    orders.ask(number_for_all(orders, 3));
    FAIL() << "nothing was thrown";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "[member 1] negative");
  }
  EXPECT_EQ(carried_out, 1);
  EXPECT_EQ(own, 3);
}

TEST(GroupOrdersTest, a_joint_order_is_done_when_all_have_answered_and_the_leader_has_its_part) {
  int carried_out = 0;
  DirectGroup group({adding(10, carried_out), adding(20, carried_out)});
  GroupOrders orders(group, adding(0, carried_out));
  int looks = 0;

  orders.ask_jointly(number_for_all(orders, 5), [&] {
    EXPECT_EQ(carried_out, 3);
    return ++looks == 7;
  });

  EXPECT_EQ(looks, 7);
  Orders others = number_for_all(orders, 5);
  others[0].reset();
  orders.ask_jointly(std::move(others), [&] { return ++looks > 7; });
  EXPECT_EQ(looks, 7);
  EXPECT_EQ(carried_out, 5);
}

/// Member 1 waits for member 2, which fails.
class StuckGroup final : public RankGroup {
 public:
  std::size_t size() const override { return 3; }
  void send(std::size_t member, std::vector<std::byte> message) override {
    if (member == 2) failure_ = failing_.handle(std::move(message));
  }
  std::vector<std::byte> receive(std::size_t) override {
    throw InternalError("waited for one member only");
  }
  std::optional<Arrival> receive_any(std::span<const std::size_t> members,
                                     std::chrono::microseconds) override {
    EXPECT_EQ(members.size(), 2U);
    return Arrival{2, failure_.value()};
  }

 private:
  OrderServer failing_{[](MessageReader&, MessageWriter&) { throw CommError("no peer"); },
                       "[member 2] "};
  std::optional<std::vector<std::byte>> failure_;
};

TEST(GroupOrdersTest, the_first_failure_of_a_joint_order_does_not_wait_for_the_others) {
  StuckGroup group;
  GroupOrders orders(group, [](MessageReader&, MessageWriter&) {});
  try {
    orders.ask_jointly(number_for_all(orders, 1), [] { return false; });
    FAIL() << "nothing was thrown";
  } catch (const CommError& error) {
    EXPECT_STREQ(error.what(), "[member 2] no peer");
  }
}

}  // namespace
}  // namespace moefy
