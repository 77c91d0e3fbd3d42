#include <fmt/format.h>

#include "moefy/comm/communicator.hpp"

#include "mpi_call.hpp"
#include "mpi_communicator.hpp"

namespace moefy {

struct MpiEnvironment::Impl {
  std::optional<MpiCommunicator> world;
};

MpiEnvironment::MpiEnvironment(std::chrono::milliseconds timeout, std::size_t chunk_bytes)
    : impl_(std::make_unique<Impl>()) {
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_FUNNELED) {
    end_job(ExitCode::comm, fmt::format("{} cannot be used by one thread of several "
                                        "(MPI_THREAD_FUNNELED)",
                                        mpi_library_version()));
  }
  impl_->world.emplace(timeout, chunk_bytes);
}

MpiEnvironment::~MpiEnvironment() { finalize(); }

Communicator& MpiEnvironment::world() {
  require(impl_->world.has_value(), "MPI is not finalized");
  return *impl_->world;
}

void MpiEnvironment::finalize() {
  if (!impl_->world) return;
  // MPI_Finalize waits without a limit; a rank that never comes is found here.
  impl_->world->barrier();
  impl_->world->release();
  impl_->world.reset();
  check_mpi(MPI_Finalize(), "MPI_Finalize");
}

}  // namespace moefy
