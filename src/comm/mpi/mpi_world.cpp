#include "mpi_world.hpp"

#include <array>
#include <optional>

#include "mpi_call.hpp"
#include "mpi_communicator.hpp"

namespace moefy {
namespace {

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return "unknown MPI library";
  const std::string version(text.data(), static_cast<std::size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));
}

class World final : public MpiWorld {
 public:
  World(std::chrono::milliseconds timeout, std::size_t chunk_bytes) {
    int provided = MPI_THREAD_SINGLE;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    if (provided < MPI_THREAD_FUNNELED) {
      end_job(ExitCode::comm,
              library_version() + " cannot be used by one thread of several (MPI_THREAD_FUNNELED)");
    }
    communicator_.emplace(timeout, chunk_bytes);
  }
  Communicator& world() override {
    require(communicator_.has_value(), "MPI is not finalized");
    return *communicator_;
  }
  void finalize() override {
    if (!communicator_) return;
    // MPI_Finalize waits without a limit; a rank that never comes is found here.
    communicator_->barrier();
    communicator_->release();
    communicator_.reset();
    check_mpi(MPI_Finalize(), "MPI_Finalize");
  }

 private:
  std::optional<MpiCommunicator> communicator_;
};

}  // namespace
}  // namespace moefy

extern "C" {

moefy::MpiWorld* moefy_open_mpi_world(std::chrono::milliseconds timeout, std::size_t chunk_bytes,
                                      bool (*ended_by_launcher)()) {
  moefy::be_silent_if(ended_by_launcher);
  return new moefy::World(timeout, chunk_bytes);
}

void moefy_describe_mpi(std::string& version) { version = moefy::library_version(); }
}
