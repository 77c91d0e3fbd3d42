#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/core/message.hpp"

namespace moefy {

/// Several ranks that work on one item together, as the first of them, the leader, sees them:
/// member 0 is the leader itself. For the leader's working thread.
class RankGroup {
 public:
  virtual ~RankGroup() = default;
  /// Members, the leader included.
  virtual std::size_t size() const = 0;
  /// To another member; returns at once, order is kept.
  virtual void send(std::size_t member, std::vector<std::byte> message) = 0;
  /// The next message of another member. Throws Interrupted if the work is stopped meanwhile.
  virtual std::vector<std::byte> receive(std::size_t member) = 0;

  struct Arrival {
    std::size_t member = 0;
    std::vector<std::byte> message;
  };
  /// The next message of any of `members`, or nothing if none comes within `longest`. Throws
  /// Interrupted as receive() does.
  virtual std::optional<Arrival> receive_any(std::span<const std::size_t> members,
                                             std::chrono::microseconds longest) = 0;
};

/// Carries out an order: reads what it says, and writes the answer if there is one.
using OrderHandler = std::function<void(MessageReader& order, MessageWriter& answer)>;

/// One order for each member; members without take no part.
using Orders = std::vector<std::optional<MessageWriter>>;

/// The members of a group as those that carry out orders. The leader carries out its own while the
/// others work on theirs.
class GroupOrders {
 public:
  /// `group` must outlive it; `own` handles the leader's orders.
  GroupOrders(RankGroup& group, OrderHandler own) : group_(group), own_(std::move(own)) {}
  std::size_t size() const { return group_.size(); }
  /// `make(member)` for every member that takes part.
  template <class Predicate, class Make>
  Orders orders(const Predicate& takes_part, const Make& make) const {
    Orders orders(size());
    for (std::size_t m = 0; m < size(); ++m) {
      if (takes_part(m)) orders[m] = make(m);
    }
    return orders;
  }
  /// Orders without an answer. What goes wrong with one is thrown by the next ask().
  void tell(Orders orders);
  /// The answers by member, of those that took part. Throws what a member threw (the lowest
  /// member's), with its class and message.
  std::vector<std::optional<MessageReader>> ask(Orders orders);
  /// The same of orders that members can only carry out with each other: whoever fails leaves the
  /// others waiting, so the first failure to arrive is thrown at once. The leader's order returns
  /// before it is carried out; `own_done` drives it and tells whether it is.
  void ask_jointly(Orders orders, const std::function<bool()>& own_done);

 private:
  void send_others(Orders& orders, bool wants_answer);
  /// The leader's own order; returns its answer.
  MessageWriter carry_out(MessageWriter& order) const;

  RankGroup& group_;
  OrderHandler own_;
};

/// The other end of GroupOrders on a member.
class OrderServer {
 public:
  /// `who` stands before the messages of its errors.
  OrderServer(OrderHandler handler, std::string who)
      : handler_(std::move(handler)), who_(std::move(who)) {}
  /// Carries out a message of GroupOrders; returns the answer that it wants, if it does. After a
  /// failure nothing is carried out until it could be told. Interrupted passes through.
  std::optional<std::vector<std::byte>> handle(std::vector<std::byte> message);

 private:
  std::vector<std::byte> failure(ExitCode code, const std::string& message) const;

  OrderHandler handler_;
  std::string who_;
  std::optional<std::vector<std::byte>> failure_;
};

}  // namespace moefy
