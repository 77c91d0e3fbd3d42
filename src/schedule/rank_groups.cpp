#include "moefy/schedule/rank_groups.hpp"

#include <algorithm>
#include <utility>

#include "group_port.hpp"
#include "moefy/comm/waiting.hpp"
#include "moefy/core/text.hpp"
#include "task_thread.hpp"

namespace moefy {
namespace {

/// A member's side.
class GroupMember {
 public:
  GroupMember(Communicator& comm, const OrderHandler& handler, std::stop_token stop,
              std::stop_source work_stop)
      : comm_(comm),
        stop_(std::move(stop)),
        port_(comm, 0, 1),
        server_(handler, with_rank(comm, "")),
        work_stop_(std::move(work_stop)),
        worker_(doorbell_) {
    port_.set_wake([this] { doorbell_.ring(); });
  }
  ~GroupMember() { work_stop_.request_stop(); }
  GroupMember(const GroupMember&) = delete;
  GroupMember& operator=(const GroupMember&) = delete;

  std::optional<RankError> run() {
    const std::stop_callback wake(stop_, [this] { doorbell_.ring(); });
    worker_.start([this] { carry_out_orders(); });
    Backoff backoff;
    while (!ended_) {
      notice_stop();
      const bool moved = port_.drive([this](int, const QueueMessage& message) { hear(message); });
      // Orders are carried out until the end; a thread that left before is a mistake of ours.
      if (const auto outcome = worker_.take_outcome(); outcome && *outcome)
        std::rethrow_exception(*outcome);
      if (moved) backoff.reset();
      if (!ended_) doorbell_.wait(std::min(backoff.next(), port_.longest_pause()));
    }
    comm_.flush();
    return std::move(error_);
  }

 private:
  void carry_out_orders() {
    const std::stop_token stop = work_stop_.get_token();
    while (!stop.stop_requested()) {
      if (auto answer = server_.handle(port_.receive(0, stop))) port_.send(0, std::move(*answer));
    }
  }

  void notice_stop() {
    if (wished_ || !stop_.stop_requested()) return;
    wished_ = true;
    post(comm_, 0, {QueueKind::stop_wish});
  }

  void hear(const QueueMessage& message) {
    if (message.kind == QueueKind::beat) return;
    require(message.kind == QueueKind::end, "a leader only lives or ends its group");
    if (message.code != ExitCode::done) error_ = {message.code, to_text(message.bytes), 0};
    port_.forget(0);
    post(comm_, 0, {QueueKind::bye});
    ended_ = true;
  }

  Communicator& comm_;
  std::stop_token stop_;
  Doorbell doorbell_;
  GroupPort port_;
  OrderServer server_;
  std::stop_source work_stop_;
  bool wished_ = false;
  bool ended_ = false;
  std::optional<RankError> error_;
  TaskThread worker_;  // last: its thread ends before what it uses
};

}  // namespace

GroupLeader::GroupLeader(Communicator& comm, std::stop_source& stop)
    : comm_(comm), stop_(stop), port_(std::make_unique<GroupPort>(comm, 1, comm.size())) {}

GroupLeader::~GroupLeader() = default;

std::size_t GroupLeader::size() const { return static_cast<std::size_t>(comm_.size()); }

void GroupLeader::send(std::size_t member, std::vector<std::byte> message) {
  port_->send(static_cast<int>(member), std::move(message));
}

std::vector<std::byte> GroupLeader::receive(std::size_t member) {
  return port_->receive(static_cast<int>(member), work_stop_);
}

std::optional<RankGroup::Arrival> GroupLeader::receive_any(std::span<const std::size_t> members,
                                                           std::chrono::microseconds longest) {
  const std::vector<int> peers(members.begin(), members.end());
  auto message = port_->receive_any(peers, work_stop_, longest);
  if (!message) return std::nullopt;
  return Arrival{static_cast<std::size_t>(message->peer), std::move(message->bytes)};
}

void GroupLeader::set_wake(std::function<void()> wake) { port_->set_wake(std::move(wake)); }

std::chrono::microseconds GroupLeader::longest_pause() const { return port_->longest_pause(); }

bool GroupLeader::drive() {
  return port_->drive([this](int peer, const QueueMessage& message) {
    if (message.kind == QueueKind::stop_wish) stop_.request_stop();
    if (message.kind != QueueKind::bye) return;
    port_->forget(peer);
    ++gone_;
  });
}

void GroupLeader::finish(const std::optional<RankError>& error) {
  drive();  // orders of work that was broken off go before the end
  port_->stop_beats();
  QueueMessage end{QueueKind::end};
  if (error) {
    end.code = error->code;
    end.bytes = to_bytes(error->message);
  }
  for (int peer = 1; peer < comm_.size(); ++peer) post(comm_, peer, end);
  Backoff backoff;
  while (gone_ + 1 < comm_.size()) {
    if (drive()) backoff.reset();
    backoff.pause();
  }
  comm_.flush();
}

std::optional<RankError> serve_group(Communicator& comm, const OrderHandler& handler,
                                     std::stop_token stop, std::stop_source ended) {
  GroupMember member(comm, handler, std::move(stop), std::move(ended));
  std::optional<RankError> error;
  try {
    error = member.run();
  } catch (const std::exception& failure) {
    // The group itself is broken, and its leader waits for this rank.
    comm.abort(ExitCode::internal, failure.what());
  }
  return error;
}

}  // namespace moefy
