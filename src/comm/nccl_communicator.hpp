#pragma once

#include <chrono>
#include <string>

#include "moefy/backend/device_transfers.hpp"
#include "moefy/comm/communicator.hpp"
#include "nccl_library.hpp"

namespace moefy {

/// The ranks of a Communicator as NCCL sees them, each with a device of its own. Calls return
/// before they have taken effect, and NCCL takes one at a time: see idle(). For one thread at a
/// time.
class NcclCommunicator {
 public:
  /// NCCL's part of `transfers`' device; both must outlive it.
  NcclCommunicator(Communicator& comm, DeviceTransfers& transfers);
  /// One that was not finalized is broken, or its job is: nobody waits for anybody any more.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  /// Joins the other ranks, through rank 0. Collective. Throws CommError, DeviceError.
  void join();
  /// Takes leave when nothing is under way. Collective. Throws CommError, DeviceError.
  void finalize();

  /// "NCCL 2.27.3"
  std::string name() const { return "NCCL " + nccl::version(library_); }
  const nccl::Library& library() const { return library_; }
  nccl::Comm handle() const { return nccl_; }

  /// Whether NCCL can take a call; `what` was asked of it. Throws what has gone wrong meanwhile,
  /// also on other ranks.
  bool idle(const std::string& what);
  /// Throws CommError, or DeviceError if the device is to blame, unless the call succeeded or has
  /// begun to.
  void check(nccl::Result result, const std::string& what) const;
  /// CommError: `what` was not done within the time-out.
  [[noreturn]] void throw_silent(const std::string& what) const;

 private:
  template <class Call>
  void call_together(const std::string& what, const Call& call);

  Communicator& comm_;
  DeviceTransfers& transfers_;
  const nccl::Library& library_;
  nccl::Comm nccl_ = nullptr;
};

}  // namespace moefy
