#include "nccl_communicator.hpp"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "moefy/comm/device_reducer.hpp"
#include "moefy/comm/waiting.hpp"

namespace moefy {

std::string nccl_obstacle(Communicator& comm) {
  std::string trouble;
  try {
    nccl::load();
  } catch (const CommError& error) {
    trouble = error.what();
  }
  return first_trouble(comm, trouble);
}

NcclCommunicator::NcclCommunicator(Communicator& comm, DeviceTransfers& transfers)
    : comm_(comm), transfers_(transfers), library_(nccl::load()) {}

NcclCommunicator::~NcclCommunicator() {
  if (nccl_ != nullptr) library_.comm_abort(nccl_);
}

void NcclCommunicator::join() {
  nccl::UniqueId id{};
  std::vector<std::byte> bytes(sizeof id);
  together(comm_, [&] {
    if (comm_.rank() > 0) return;
    check(library_.get_unique_id(&id), "beginning");
    std::memcpy(bytes.data(), &id, sizeof id);
  });
  comm_.broadcast(bytes);
  std::memcpy(&id, bytes.data(), sizeof id);
  nccl::Config config;
  call_together("joining the other ranks", [&] {
    return library_.comm_init_rank_config(&nccl_, comm_.size(), id, comm_.rank(), &config);
  });
}

void NcclCommunicator::finalize() {
  call_together("taking leave", [this] { return library_.comm_finalize(nccl_); });
  together(comm_, [this] {
    check(library_.comm_destroy(std::exchange(nccl_, nullptr)), "closing the link");
  });
}

bool NcclCommunicator::idle(const std::string& what) {
  nccl::Result state = nccl::success;
  check(library_.comm_get_async_error(nccl_, &state), "asking for errors");
  check(state, what);
  return state == nccl::success;
}

/// Makes `call` on every rank and waits until it has taken effect on all of them. They look
/// together, so that a rank on which it fails leaves nobody waiting. Collective.
template <class Call>
void NcclCommunicator::call_together(const std::string& what, const Call& call) {
  together(comm_, [&] {
    transfers_.enter();
    check(call(), what);
  });
  Backoff backoff;
  WatchClock watch(std::chrono::steady_clock::now());
  for (;;) {
    bool done_here = false;
    together(comm_, [&] {
      done_here = idle(what);
      if (!done_here && watch.look(std::chrono::steady_clock::now()) > patience(comm_))
        throw_silent(what);
    });
    if (first_trouble(comm_, done_here ? "" : "busy").empty()) return;
    backoff.pause();
  }
}

void NcclCommunicator::check(nccl::Result result, const std::string& what) const {
  if (result == nccl::success || result == nccl::in_progress) return;
  const char* const detail = library_.get_last_error(nccl_);
  const std::string message = fmt::format(
      "NCCL, {}: {}{}{}", what, library_.get_error_string(result),
      detail == nullptr || *detail == '\0' ? "" : ": ", detail == nullptr ? "" : detail);
  if (result == nccl::unhandled_cuda_error) throw DeviceError(message);
  throw CommError(message);
}

void NcclCommunicator::throw_silent(const std::string& what) const {
  throw CommError(
      fmt::format("NCCL, {}: no answer within {} s (--timeout). A rank hangs or cannot "
                  "be reached; finished work is in the journal",
                  what, static_cast<double>(comm_.timeout().count()) / 1000));
}

}  // namespace moefy
