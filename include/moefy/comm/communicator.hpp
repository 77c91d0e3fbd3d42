#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"

namespace moefy {

/// What the environment says about the launch (mpirun, srun, torchrun or nothing).
struct LaunchInfo {
  enum class Kind { alone, mpi, torchrun };
  Kind kind = Kind::alone;
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
};
/// Reads OMPI_COMM_WORLD_*, PMI*, SLURM_*, then RANK/WORLD_SIZE/LOCAL_RANK/MASTER_ADDR. UsageError
/// that prints what was found if they contradict each other. Slurm's own variables count only
/// inside a job step (srun), not in the batch shell.
LaunchInfo detect_launch(const std::map<std::string, std::string>& environment);
std::map<std::string, std::string> process_environment();

/// Host messages and collectives between ranks; counts in size_t. All collectives must be entered
/// by all ranks in the same order. Waiting sleeps with back-off. If an MPI call itself fails, the
/// rank prints one message and aborts the job (exit code 5). A peer that stays silent longer than
/// the time-out in a wait ends the job in the same way. To be used by one thread: the one that
/// initialised MPI.
class Communicator {
 public:
  static constexpr int kMaxTag = 1023;

  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// A message that has arrived.
  struct Message {
    int source = -1;
    int tag = 0;
    std::vector<std::byte> bytes;
  };
  /// Starts a send and returns; the bytes are kept until it is done. Order between two ranks is
  /// kept per tag; tags are in [0, kMaxTag].
  virtual void post(int target, int tag, std::vector<std::byte> bytes) = 0;
  /// The next arrived message, if there is one. Drives outstanding sends.
  virtual std::optional<Message> poll() = 0;
  /// Large payloads straight into the receiver's memory. `receive_into` must be posted before the
  /// sender is told to send; what is sent may be shorter than `target`. Both return a handle at
  /// once; `bulk_done` drives the transfer and tells (and then forgets the handle). At most one
  /// transfer per peer and direction at a time; the memory must live until it is done.
  virtual std::size_t receive_into(int source, std::span<std::byte> target) = 0;
  virtual std::size_t send_from(int target, std::span<const std::byte> bytes) = 0;
  virtual bool bulk_done(std::size_t handle) = 0;
  /// Completes everything posted.
  virtual void flush() = 0;

  virtual void barrier() = 0;
  /// Root's bytes to everyone.
  virtual void broadcast(std::vector<std::byte>& bytes, int root = 0) = 0;
  /// Everyone's bytes to root, by rank (empty elsewhere).
  virtual std::vector<std::vector<std::byte>> gather(std::span<const std::byte> bytes,
                                                     int root = 0) = 0;
  /// The ranks of this one that pass the same `color` (not negative), in the same order, as ranks
  /// of their own. Collective over all of them. What it returns must not be used after this one's
  /// end.
  virtual std::unique_ptr<Communicator> split(int color) = 0;
  /// The number of `rank` among all ranks of the job, which is what messages name, and how many
  /// those are.
  virtual int job_rank(int rank) const { return rank; }
  virtual int job_size() const { return size(); }

  /// Ends the job at once (MPI_Abort); for errors that no collective can tell any more.
  [[noreturn]] virtual void abort(ExitCode code, const std::string& message) = 0;

  virtual std::chrono::milliseconds timeout() const = 0;
};

/// An error that happened somewhere, as told to all.
struct RankError {
  ExitCode code = ExitCode::done;
  std::string message;
  int rank = -1;
};
/// The message with `[rank r on host] ` before it, unless the job has only one rank or it says so
/// already.
std::string with_rank(const Communicator& comm, const std::string& message);
/// Exchanges errors before a collective: throws on every rank if any rank passed one (same class
/// and message everywhere). Of several, the lowest rank's counts; an interruption only if there is
/// nothing worse. Collective.
void all_ok(Communicator& comm, const std::optional<RankError>& mine);
/// Runs `phase` on this rank and then all_ok. Collective.
template <class Phase>
void together(Communicator& comm, Phase&& phase);

/// What each rank has against something that needs all of them (empty: nothing): that of the lowest
/// rank, with its number, on all ranks. Collective.
std::string first_trouble(Communicator& comm, const std::string& mine);

/// One rank, no MPI call at all.
std::unique_ptr<Communicator> make_self_communicator();

/// Throws UsageError if the launcher started more processes than `world` has: it and the MPI
/// library do not speak to each other, and every process would do all the work alone. Not
/// collective.
void require_launched_size(const LaunchInfo& launch, const Communicator& world);

/// Owns MPI_Init_thread … MPI_Finalize. Must live on the thread that communicates.
class MpiEnvironment {
 public:
  /// Longer messages are cut, because MPI counts in int.
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 30;

  /// Initialises MPI. `chunk_bytes` is the longest single MPI message.
  explicit MpiEnvironment(std::chrono::milliseconds timeout, std::size_t chunk_bytes = kChunkBytes);
  /// Finalizes, if that was not done.
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;
  Communicator& world();
  /// Waits for all ranks (at most the time-out) and finalizes; afterwards the communicator is gone.
  void finalize();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
std::string mpi_library_version();

}  // namespace moefy

#include "moefy/comm/together.inl"
