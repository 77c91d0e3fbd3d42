#include <fmt/format.h>

#include <cstring>

#include "abort_message.hpp"
#include "moefy/comm/communicator.hpp"
#include "moefy/core/host.hpp"
#include "moefy/core/text.hpp"

namespace moefy {
namespace {

std::vector<std::byte> encode(const RankError& error) {
  const int code = static_cast<int>(error.code);
  std::vector<std::byte> bytes(sizeof code + error.message.size());
  std::memcpy(bytes.data(), &code, sizeof code);
  std::memcpy(bytes.data() + sizeof code, error.message.data(), error.message.size());
  return bytes;
}

RankError decode(std::span<const std::byte> bytes) {
  int code = 0;
  require(bytes.size() >= sizeof code, "an error message of all_ok is complete");
  std::memcpy(&code, bytes.data(), sizeof code);
  return {static_cast<ExitCode>(code), to_text(bytes.subspan(sizeof code)), -1};
}

/// What everybody throws: of all ranks' errors the one that explains most.
std::optional<RankError> choose(const std::vector<std::vector<std::byte>>& errors_by_rank) {
  std::optional<RankError> chosen;
  for (std::size_t rank = 0; rank < errors_by_rank.size(); ++rank) {
    if (errors_by_rank[rank].empty()) continue;
    RankError error = decode(errors_by_rank[rank]);
    error.rank = static_cast<int>(rank);
    if (!chosen || (chosen->code == ExitCode::interrupted && error.code != ExitCode::interrupted)) {
      chosen = error;
    }
  }
  return chosen;
}

}  // namespace

std::string with_rank(const Communicator& comm, const std::string& message) {
  if (comm.job_size() == 1 || message.starts_with("[rank ")) return message;
  return fmt::format("[rank {} on {}] {}", comm.job_rank(comm.rank()), host_name(), message);
}

void all_ok(Communicator& comm, const std::optional<RankError>& mine) {
  std::vector<std::byte> bytes;
  if (mine) bytes = encode({mine->code, with_rank(comm, mine->message), comm.rank()});
  const auto errors_by_rank = comm.gather(bytes);

  std::vector<std::byte> verdict;
  if (comm.rank() == 0) {
    if (const auto chosen = choose(errors_by_rank)) verdict = encode(*chosen);
  }
  comm.broadcast(verdict);
  if (verdict.empty()) return;
  const RankError error = decode(verdict);
  throw_error(error.code, error.message);
}

std::string first_trouble(Communicator& comm, const std::string& mine) {
  const auto troubles = comm.gather(to_bytes(mine));
  std::vector<std::byte> first;  // only rank 0 has heard all of them
  for (std::size_t rank = 0; rank < troubles.size() && first.empty(); ++rank) {
    if (!troubles[rank].empty())
      first = to_bytes(fmt::format("rank {}: {}", rank, to_text(troubles[rank])));
  }
  comm.broadcast(first);
  return to_text(first);
}

void require_launched_size(const LaunchInfo& launch, const Communicator& world) {
  if (launch.size <= world.size()) return;
  throw UsageError(
      fmt::format("the launcher started {} processes, but MPI sees only {}: launcher and MPI "
                  "library do not fit "
                  "together (Slurm: srun --mpi=pmix or --mpi=pmi2; else use the mpirun of {})",
                  launch.size, world.size(), mpi_library_version()));
}

}  // namespace moefy
