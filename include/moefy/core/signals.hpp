#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

namespace moefy {

/// Turns SIGINT, SIGTERM, SIGUSR1 and the end of the wall time into a stop request. The signals are
/// blocked in the calling thread and in all threads it starts from then on (so make the guard
/// before MPI) and taken by one thread that waits for them; older threads pass theirs on to it.
/// After a first signal, another SIGINT or SIGTERM ends the process at once with 130 or 143. One
/// guard at a time.
class SignalGuard {
 public:
  /// `wall_time`: the request comes at 99 % of it, counted from here.
  explicit SignalGuard(std::optional<std::chrono::duration<double>> wall_time = std::nullopt);
  /// Ends the thread and gives the calling thread its signal mask back.
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  std::stop_token token() const;
  /// What asked for the stop: "SIGINT", "SIGTERM", "SIGUSR1", "wall time"; empty if nothing did.
  std::string cause() const;

  /// The outcome stands: from here on signals change nothing. A launcher that sees one rank leave
  /// with a code sends SIGTERM to those that are still on their way out.
  void ignore_further_signals();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Whether a SIGTERM or a SIGCONT has come while a guard was there: launchers send them to the
/// ranks that are left once one of them has ended the job (Open MPI SIGCONT first, SIGTERM seconds
/// later).
bool launcher_may_be_ending_us();

}  // namespace moefy
