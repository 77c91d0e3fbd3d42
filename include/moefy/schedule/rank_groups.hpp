#pragma once

#include <memory>
#include <optional>
#include <stop_token>

#include "moefy/comm/communicator.hpp"
#include "moefy/core/rank_group.hpp"
#include "moefy/schedule/layer_queue.hpp"

namespace moefy {

class GroupPort;

/// The leader's end of a group of ranks that share its items. Its working thread sends and receives
/// through the thread that runs the queue, as whose companion this goes along. Rank 0 of `comm`
/// leads, the others run serve_group().
class GroupLeader final : public RankGroup, public QueueCompanion {
 public:
  /// `comm`: the ranks of the group. A member that was told to stop makes `stop` requested.
  GroupLeader(Communicator& comm, std::stop_source& stop);
  ~GroupLeader() override;

  // The working thread:
  std::size_t size() const override;
  void send(std::size_t member, std::vector<std::byte> message) override;
  std::vector<std::byte> receive(std::size_t member) override;
  std::optional<Arrival> receive_any(std::span<const std::size_t> members,
                                     std::chrono::microseconds longest) override;
  /// What ends receive() and receive_any() from now on.
  void stop_with(std::stop_token stop) { work_stop_ = std::move(stop); }

  // The communicating thread:
  void set_wake(std::function<void()> wake) override;
  bool drive() override;
  std::chrono::microseconds longest_pause() const override;
  /// Ends the group after the queue, with the queue's error if there was one: serve_group() returns
  /// it on every member. Returns when all have said good-bye.
  void finish(const std::optional<RankError>& error);

 private:
  Communicator& comm_;
  std::stop_source& stop_;
  std::stop_token work_stop_;
  std::unique_ptr<GroupPort> port_;
  int gone_ = 0;
};

/// Carries out the leader's orders on a second thread until it finishes the group; returns its
/// error. `stop`: tells the leader that this rank is to stop. `ended` is requested when it has
/// finished the group: an order that is still under way then should throw Interrupted. A leader
/// that stays silent for the time-out ends the job. Communicates on the calling thread.
std::optional<RankError> serve_group(Communicator& comm, const OrderHandler& handler,
                                     std::stop_token stop, std::stop_source ended = {});

}  // namespace moefy
