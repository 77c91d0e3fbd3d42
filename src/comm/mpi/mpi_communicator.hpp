#pragma once

#include <mpi.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "moefy/comm/communicator.hpp"
#include "moefy/comm/waiting.hpp"

namespace moefy {

/// The ranks of MPI_COMM_WORLD, or a part of them, on two communicators: one for messages and
/// collectives, one for bulk, so that a probe for messages never sees a payload.
class MpiCommunicator final : public Communicator {
 public:
  /// All ranks.
  MpiCommunicator(std::chrono::milliseconds timeout, std::size_t chunk_bytes);
  /// Frees what MPI made for this one and its parts. Not in a destructor, because it can fail and
  /// has to happen in the same order on all ranks.
  void release();

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void post(int target, int tag, std::vector<std::byte> bytes) override;
  std::optional<Message> poll() override;
  std::size_t receive_into(int source, std::span<std::byte> target) override;
  std::size_t send_from(int target, std::span<const std::byte> bytes) override;
  bool bulk_done(std::size_t handle) override;
  void flush() override;
  void barrier() override;
  void broadcast(std::vector<std::byte>& bytes, int root) override;
  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> bytes, int root) override;
  std::unique_ptr<Communicator> split(int color) override;
  int job_rank(int rank) const override { return job_ranks_[static_cast<std::size_t>(rank)]; }
  int job_size() const override { return job_size_; }
  [[noreturn]] void abort(ExitCode code, const std::string& message) override;
  std::chrono::milliseconds timeout() const override { return timeout_; }

 private:
  /// The part with this color of another one.
  MpiCommunicator(const MpiCommunicator& whole, int color);
  /// Learns size and numbers of the ranks.
  void ask_ranks();

  struct Outgoing {
    std::vector<std::byte> bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  struct Incoming {
    Message part;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  /// A payload on its way, one chunk at a time. A chunk that is not full is the last.
  struct Bulk {
    bool sending = false;
    int peer = -1;
    std::byte* data = nullptr;
    std::size_t size = 0;
    std::size_t offset = 0;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void post_part(int target, int tag, std::vector<std::byte> bytes, std::uint64_t bytes_to_come);
  void drive_sends();
  bool find_incoming();
  bool find_incoming_from(int source);
  std::optional<Message> take_part();
  std::optional<Message> assemble(Message part);
  void start_chunk(Bulk& bulk);
  std::size_t add_bulk(bool sending, int peer, std::byte* data, std::size_t size);
  void wait_bulk(std::size_t handle);
  template <class Done>
  void wait_until(Done&& done, const std::string& what);
  void wait_request(MPI_Request& request, const char* call);
  void check_peer(int peer) const;

  std::chrono::milliseconds timeout_;
  std::size_t chunk_bytes_;
  MPI_Comm messages_ = MPI_COMM_NULL;
  MPI_Comm bulk_ = MPI_COMM_NULL;
  std::shared_ptr<std::vector<MPI_Comm>> made_;  ///< for all ranks and their parts; to be freed
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> job_ranks_;  ///< by rank
  int job_size_ = 1;
  std::deque<Outgoing> outgoing_;
  std::vector<Incoming> incoming_;  ///< one a source at most, so that their order is kept
  std::map<std::pair<int, int>, std::vector<std::byte>> partial_;  ///< by (source, tag)
  std::map<std::size_t, Bulk> bulks_;
  std::size_t next_handle_ = 0;
};

}  // namespace moefy
