#include "moefy/core/signals.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <future>
#include <limits>
#include <thread>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using Clock = std::chrono::steady_clock;

enum class Cause { none, interrupt, terminate, user, wall_time };

Cause cause_of(std::uint32_t signal) {
  if (signal == SIGINT) return Cause::interrupt;
  return signal == SIGTERM ? Cause::terminate : Cause::user;
}

[[noreturn]] void leave_at_once(Cause cause) {
  const bool interrupt = cause == Cause::interrupt;
  const int code = interrupt ? 130 : 143;
  const std::string text =
      fmt::format("moefy: exit {} (second signal, {})\n", code, interrupt ? "SIGINT" : "SIGTERM");
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  _exit(code);
}

constexpr std::array kWatched{SIGINT, SIGTERM, SIGUSR1, SIGCONT};

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kWatched) sigaddset(&set, signal);
  return set;
}

/// The thread that takes the signals; a signal handler has no other way to know it.
std::atomic<pid_t> watcher_thread{0};
static_assert(std::atomic<pid_t>::is_always_lock_free);

std::atomic<bool> end_may_be_near{false};

/// Libraries start threads when they are loaded (OpenBLAS does), before anything could be blocked.
/// A signal that reaches one of them is passed on to the watcher.
extern "C" void pass_on_to_watcher(int signal) {
  const int error = errno;
  syscall(SYS_tgkill, getpid(), watcher_thread.load(), signal);
  errno = error;
}

}  // namespace

struct SignalGuard::Impl {
  std::stop_source source;
  std::atomic<Cause> cause{Cause::none};
  std::atomic<bool> ignoring{false};
  std::optional<Clock::time_point> deadline;
  sigset_t old_mask{};
  std::array<struct sigaction, kWatched.size()> old_actions{};
  int signal_descriptor = -1;
  int quit_descriptor = -1;
  std::thread watcher;

  void request_stop(Cause why) {
    cause = why;
    source.request_stop();
  }

  /// For poll(): milliseconds to the deadline, rounded up; -1 without one.
  int poll_timeout() const {
    if (!deadline || cause != Cause::none) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max()));
  }

  void take_signal() {
    signalfd_siginfo info{};
    if (read(signal_descriptor, &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGCONT) end_may_be_near = true;
    if (ignoring || info.ssi_signo == SIGCONT) return;
    const Cause arrived = cause_of(info.ssi_signo);
    if (cause == Cause::none) {
      request_stop(arrived);
    } else if (arrived != Cause::user && cause != Cause::wall_time) {
      leave_at_once(arrived);
    } else if (cause == Cause::wall_time) {
      cause = arrived;
    }
  }

  void install_handlers() {
    struct sigaction action {};
    action.sa_handler = pass_on_to_watcher;
    action.sa_flags = SA_RESTART;
    action.sa_mask = watched_signals();
    for (std::size_t i = 0; i < kWatched.size(); ++i) {
      sigaction(kWatched[i], &action, &old_actions[i]);
    }
  }

  void remove_handlers() {
    for (std::size_t i = 0; i < kWatched.size(); ++i) {
      sigaction(kWatched[i], &old_actions[i], nullptr);
    }
  }

  void watch() {
    for (;;) {
      std::array<pollfd, 2> watched{{{signal_descriptor, POLLIN, 0}, {quit_descriptor, POLLIN, 0}}};
      const int ready = poll(watched.data(), watched.size(), poll_timeout());
      if (ready < 0 && errno != EINTR) return;
      if (watched[0].revents != 0) take_signal();
      if (watched[1].revents != 0) return;
      if (cause == Cause::none && deadline && Clock::now() >= *deadline) {
        request_stop(Cause::wall_time);
      }
    }
  }
};

SignalGuard::SignalGuard(std::optional<std::chrono::duration<double>> wall_time)
    : impl_(std::make_unique<Impl>()) {
  if (wall_time) {
    // Longer than a century is for ever, and would overflow the clock.
    constexpr std::chrono::duration<double> kForever{3.2e9};
    if (*wall_time < kForever) {
      impl_->deadline =
          Clock::now() + std::chrono::duration_cast<Clock::duration>(*wall_time * 0.99);
    }
  }
  const sigset_t set = watched_signals();
  if (const int error = pthread_sigmask(SIG_BLOCK, &set, &impl_->old_mask)) {
    throw IoError("signals", "block", error);
  }
  impl_->signal_descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  impl_->quit_descriptor = eventfd(0, EFD_CLOEXEC);
  if (impl_->signal_descriptor < 0 || impl_->quit_descriptor < 0) {
    const int error = errno;
    if (impl_->signal_descriptor >= 0) close(impl_->signal_descriptor);
    pthread_sigmask(SIG_SETMASK, &impl_->old_mask, nullptr);
    throw IoError("signals", "watch for", error);
  }
  std::promise<void> watching;
  impl_->watcher = std::thread([impl = impl_.get(), &watching] {
    watcher_thread = static_cast<pid_t>(syscall(SYS_gettid));
    impl->install_handlers();
    watching.set_value();
    impl->watch();
  });
  watching.get_future().wait();
}

SignalGuard::~SignalGuard() {
  const std::uint64_t one = 1;
  // Cannot fail: the counter is far from its limit.
  [[maybe_unused]] const ssize_t written = write(impl_->quit_descriptor, &one, sizeof one);
  impl_->watcher.join();
  impl_->remove_handlers();
  close(impl_->signal_descriptor);
  close(impl_->quit_descriptor);
  pthread_sigmask(SIG_SETMASK, &impl_->old_mask, nullptr);
}

void SignalGuard::ignore_further_signals() { impl_->ignoring = true; }

std::stop_token SignalGuard::token() const { return impl_->source.get_token(); }

bool launcher_may_be_ending_us() { return end_may_be_near; }

std::string SignalGuard::cause() const {
  switch (impl_->cause.load()) {
    case Cause::interrupt:
      return "SIGINT";
    case Cause::terminate:
      return "SIGTERM";
    case Cause::user:
      return "SIGUSR1";
    case Cause::wall_time:
      return "wall time";
    case Cause::none:
      break;
  }
  return {};
}

}  // namespace moefy
