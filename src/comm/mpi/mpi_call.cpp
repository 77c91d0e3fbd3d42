#include "mpi_call.hpp"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "moefy/comm/communicator.hpp"

#include "abort_message.hpp"

namespace moefy {
namespace {

/// True between MPI_Init and MPI_Finalize.
bool mpi_is_running() {
  int initialized = 0;
  int finalized = 0;
  return MPI_Initialized(&initialized) == MPI_SUCCESS && initialized != 0 &&
         MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0;
}

std::string mpi_error_text(int result) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (!mpi_is_running() || MPI_Error_string(result, text.data(), &length) != MPI_SUCCESS ||
      length <= 0) {
    return fmt::format("MPI error {}", result);
  }
  return {text.data(), static_cast<std::size_t>(length)};
}

/// MPI_Comm_rank itself may be what failed: then the launcher's variables still know.
std::optional<int> rank_from_environment() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return std::nullopt;
}

using namespace std::chrono_literals;
/// Longer than launchers leave between their first signal and SIGKILL (launch/mpirun: 4 s).
constexpr auto kLaunchersPatience = 6s;
/// A connection may break a moment before the launcher's first signal arrives.
constexpr auto kMomentForSignal = 500ms;

bool (*is_ended_by_launcher)() = [] { return false; };

/// Where another rank has ended the job and the launcher is about to end this one, what this one
/// sees is a consequence, and the message has been printed. Returns if nobody ends it after all.
void let_another_speak(ExitCode code) {
  if (code == ExitCode::comm) {
    const auto end = std::chrono::steady_clock::now() + kMomentForSignal;
    while (!is_ended_by_launcher() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(10ms);
    }
  }
  if (is_ended_by_launcher()) std::this_thread::sleep_for(kLaunchersPatience);
}

}  // namespace

void be_silent_if(bool (*ended_by_launcher)()) { is_ended_by_launcher = ended_by_launcher; }

void end_job(ExitCode code, const std::string& message) {
  let_another_speak(code);
  print_last_words(rank_from_environment(), code, message);
  // The launcher reads our stderr through a pipe and may close it as soon as it hears of the abort.
  std::this_thread::sleep_for(100ms);
  if (mpi_is_running()) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

void check_mpi(int result, const char* call, const std::string& detail) {
  if (result == MPI_SUCCESS) return;
  end_job(ExitCode::comm, fmt::format("{}{}{} failed: {}", call, detail.empty() ? "" : " ", detail,
                                      mpi_error_text(result)));
}

}  // namespace moefy
