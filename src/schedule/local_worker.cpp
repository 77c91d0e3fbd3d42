#include "local_worker.hpp"

#include <new>
#include <utility>

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
  return std::move(current_);
}

}  // namespace moefy
