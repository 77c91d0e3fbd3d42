#include "moefy/core/rank_group.hpp"

#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

// The first number of an answer.
constexpr int kFine = 0;

/// What follows the first number of an answer; throws the failure that it tells.
MessageReader open_answer(std::vector<std::byte> message) {
  MessageReader answer(std::move(message));
  const int code = answer.next<int>();
  if (code != kFine) throw_error(static_cast<ExitCode>(code), answer.next_text());
  return answer;
}

}  // namespace

void GroupOrders::send_others(Orders& orders, bool wants_answer) {
  require(orders.size() == size(), "an order or none for each member");
  for (std::size_t m = 1; m < orders.size(); ++m) {
    if (!orders[m]) continue;
    orders[m]->add(wants_answer);
    group_.send(m, orders[m]->take());
  }
}

MessageWriter GroupOrders::carry_out(MessageWriter& order) const {
  MessageReader reader(order.take());
  MessageWriter answer;
  own_(reader, answer);
  return answer;
}

void GroupOrders::tell(Orders orders) {
  send_others(orders, false);
  if (orders[0]) carry_out(*orders[0]);
}

std::vector<std::optional<MessageReader>> GroupOrders::ask(Orders orders) {
  send_others(orders, true);
  std::vector<std::optional<MessageReader>> answers(orders.size());
  if (orders[0]) answers[0].emplace(carry_out(*orders[0]).take());
  for (std::size_t m = 1; m < orders.size(); ++m) {
    if (orders[m]) answers[m].emplace(open_answer(group_.receive(m)));
  }
  return answers;
}

void GroupOrders::ask_jointly(Orders orders, const std::function<bool()>& own_done) {
  constexpr std::chrono::microseconds kBetweenLooks{50};
  std::vector<std::size_t> awaited;
  for (std::size_t m = 1; m < orders.size(); ++m) {
    if (orders[m]) awaited.push_back(m);
  }
  send_others(orders, true);
  if (orders[0]) carry_out(*orders[0]);
  bool done = !orders[0];
  for (;;) {
    done = done || own_done();
    if (done && awaited.empty()) return;
    auto arrival = group_.receive_any(awaited, kBetweenLooks);
    if (!arrival) continue;
    open_answer(std::move(arrival->message));
    std::erase(awaited, arrival->member);
  }
}

std::vector<std::byte> OrderServer::failure(ExitCode code, const std::string& message) const {
  MessageWriter writer;
  writer.add(static_cast<int>(code));
  writer.add_text(who_ + message);
  return writer.take();
}

std::optional<std::vector<std::byte>> OrderServer::handle(std::vector<std::byte> message) {
  require(!message.empty(), "an order says whether it wants an answer");
  const bool wants_answer = message.back() != std::byte{0};
  MessageWriter answer;
  answer.add(kFine);
  if (!failure_) {
    try {
      MessageReader order(std::move(message));
      handler_(order, answer);
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      failure_ = failure(error.code(), error.what());
    } catch (const std::bad_alloc&) {
      failure_ = failure(ExitCode::internal, "out of memory");
    } catch (const std::exception& error) {
      failure_ = failure(ExitCode::internal, error.what());
    }
  }
  if (!wants_answer) return std::nullopt;
  if (failure_) return std::exchange(failure_, std::nullopt);
  return answer.take();
}

}  // namespace moefy
