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

LocalWorker::LocalWorker(const Communicator& comm, const QueueCallbacks& callbacks,
                         Doorbell& doorbell)
    : comm_(comm), callbacks_(callbacks), worker_(doorbell) {
  if (callbacks.prepare) preparer_.emplace(doorbell);
}

bool LocalWorker::has_room() const { return preparer_ ? !preparing_ && !prepared_ : !working_; }

void LocalWorker::start(std::int64_t id, PayloadReader* payload) {
  if (!preparer_) return work(id, payload);
  preparing_ = id;
  preparer_->start([this, id, payload] { callbacks_.prepare(id, payload, stop_.get_token()); });
}

void LocalWorker::work(std::int64_t id, PayloadReader* payload) {
  working_ = id;
  current_ = {};
  current_.id = id;
  worker_.start([this, id, payload] {
    const Stopwatch stopwatch;
    current_.result = callbacks_.work(id, payload, stop_.get_token());
    current_.seconds = stopwatch.seconds();
  });
}

std::optional<WorkOutcome> LocalWorker::finish_work() {
  const auto outcome = worker_.take_outcome();
  if (!outcome) return std::nullopt;
  working_.reset();
  if (*outcome) current_.error = error_of(comm_, *outcome);
  if (shortest_seconds_ == 0 || current_.seconds < shortest_seconds_)
    shortest_seconds_ = current_.seconds;
  return std::move(current_);
}

std::optional<WorkOutcome> LocalWorker::finish_preparation() {
  const auto outcome = preparer_ ? preparer_->take_outcome() : std::nullopt;
  if (!outcome) return std::nullopt;
  const std::int64_t id = *preparing_;
  preparing_.reset();
  if (!*outcome) {
    prepared_ = id;
    return std::nullopt;
  }
  WorkOutcome failed;
  failed.id = id;
  failed.error = error_of(comm_, *outcome);
  return failed;
}

std::optional<WorkOutcome> LocalWorker::take_outcome() {
  std::optional<WorkOutcome> ended = finish_work();
  if (!ended) ended = finish_preparation();
  if (prepared_ && !working_) {
    const std::int64_t id = *prepared_;
    prepared_.reset();
    work(id, nullptr);
  }
  return ended;
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
