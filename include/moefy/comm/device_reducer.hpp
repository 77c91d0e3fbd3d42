#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "moefy/backend/backend.hpp"
#include "moefy/backend/sum_reducer.hpp"
#include "moefy/comm/communicator.hpp"

namespace moefy {

/// A SumReducer between the ranks of a Communicator, of which rank 0 leads.
class DeviceReducer : public SumReducer {
 public:
  /// "NCCL 2.27.3"
  virtual std::string name() const = 0;
  /// What ends wait() from now on.
  virtual void stop_with(std::stop_token stop) = 0;
  /// Ends it when nothing is under way; without, its end aborts what is, in silence. Collective.
  /// Throws CommError, DeviceError.
  virtual void finalize() = 0;
};

/// Why sums cannot be added up over NCCL: what a rank has against it, empty if nothing. The same
/// answer on all ranks. Collective.
std::string nccl_obstacle(Communicator& comm);

/// NCCL, in the memory of the devices, of which every rank has one of its own. `comm` and `backend`
/// must outlive it. Collective. Throws CommError, DeviceError.
std::unique_ptr<DeviceReducer> make_nccl_reducer(Communicator& comm, Backend& backend);

}  // namespace moefy
