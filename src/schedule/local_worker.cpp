#include "local_worker.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "moefy/comm/waiting.hpp"
#include "moefy/core/stopwatch.hpp"

namespace moefy {

RankError error_of(const Communicator& comm, const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return {error.code(), with_rank(comm, error.what()), comm.rank()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::internal, with_rank(comm, "out of memory"), comm.rank()};
  } catch (const std::exception& error) {
    return {ExitCode::internal, with_rank(comm, error.what()), comm.rank()};
  } catch (...) {
    return {ExitCode::internal, with_rank(comm, "unknown exception"), comm.rank()};
  }
}

void LocalWorker::start(std::int64_t id, PayloadReader* payload) {
  current_ = {};
  current_.id = id;
  thread_.start([this, id, payload] {
    const Stopwatch stopwatch;
    current_.result = callbacks_.work(id, payload, stop_.get_token());
    current_.seconds = stopwatch.seconds();
  });
}

std::optional<WorkOutcome> LocalWorker::take_outcome() {
  const auto outcome = thread_.take_outcome();
  if (!outcome) return std::nullopt;
  if (*outcome) current_.error = error_of(comm_, *outcome);
  if (shortest_seconds_ == 0 || current_.seconds < shortest_seconds_)
    shortest_seconds_ = current_.seconds;
  return std::move(current_);
}

std::chrono::microseconds LocalWorker::longest_pause() const {
  constexpr std::chrono::microseconds kMost{8 * Backoff::kLongest};
  constexpr double kPartOfItem = 1.0 / 16;
  if (!busy()) return Backoff::kLongest;
  const std::chrono::duration<double, std::micro> part(1e6 * kPartOfItem * shortest_seconds_);
  return std::clamp(std::chrono::duration_cast<std::chrono::microseconds>(part), Backoff::kLongest,
                    kMost);
}

}  // namespace moefy
