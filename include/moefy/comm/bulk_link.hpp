#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "moefy/backend/backend.hpp"
#include "moefy/comm/communicator.hpp"

namespace moefy {

/// Carries the pieces of payloads from rank 0 to ranks that work. At most one transfer a peer at a
/// time. To be used by the thread that communicates, but for copy_out.
class BulkLink {
 public:
  /// Ends what is still open, in silence.
  virtual ~BulkLink() = default;
  /// "host", "NCCL 2.27.3"
  virtual std::string name() const = 0;
  /// Where received bytes lie, and where copy_out puts them.
  virtual MemorySpace space() const = 0;
  /// Memory for a piece, kept as long as the link. Rank 0 fills it in host memory and sends from
  /// it; the others receive into it, in space(). Throws std::bad_alloc, DeviceError.
  virtual std::span<std::byte> make_buffer(std::size_t bytes) = 0;

  /// Both return a handle at once. A receive is posted before the sender is told to send, and as
  /// long as what is sent; the memory must live until the transfer is done.
  virtual std::size_t receive_into(int source, std::span<std::byte> target) = 0;
  virtual std::size_t send_from(int target, std::span<const std::byte> bytes) = 0;
  /// Drives the transfers and tells (and then forgets the handle). Throws CommError, DeviceError.
  virtual bool done(std::size_t handle) = 0;
  /// From a received piece to where the work wants it; complete on return. For the thread that
  /// works, beside the other functions.
  virtual void copy_out(std::span<const std::byte> piece, std::span<std::byte> out) = 0;

  /// Ends the link when nothing is under way. Collective. Throws CommError.
  virtual void finalize() = 0;
};

/// Host messages. `comm` must outlive it.
std::unique_ptr<BulkLink> make_host_link(Communicator& comm);

/// NCCL, from device to device; every rank has a device of its own. Null, and why, if a rank cannot
/// load it. `comm` and `backend` must outlive it. Collective, the same answer on all ranks. Throws
/// CommError, DeviceError.
std::unique_ptr<BulkLink> make_nccl_link(Communicator& comm, Backend& backend,
                                         std::string& why_not);

}  // namespace moefy
