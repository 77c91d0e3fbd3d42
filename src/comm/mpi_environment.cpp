#include <dlfcn.h>
#include <fmt/format.h>

#include "moefy/comm/communicator.hpp"
#include "moefy/core/signals.hpp"
#include "mpi_world.hpp"

namespace moefy {

namespace {

/// Function `name` of libmoefy_mpi.so. CommError if it, or the MPI library, cannot be loaded.
template <class Function>
Function* find_function(const char* name) {
  // Global, because MPI loads parts of its own that expect to find it; never unloaded, like MPI.
  static void* const library = dlopen("libmoefy_mpi.so", RTLD_NOW | RTLD_GLOBAL);
  void* const found = library == nullptr ? nullptr : dlsym(library, name);
  if (found == nullptr) {
    const char* const reason = dlerror();
    throw CommError(
        fmt::format("MPI cannot be loaded: {}", reason == nullptr ? "no reason given" : reason));
  }
  return reinterpret_cast<Function*>(found);
}

}  // namespace

struct MpiEnvironment::Impl {
  std::unique_ptr<MpiWorld> mpi;
};

MpiEnvironment::MpiEnvironment(std::chrono::milliseconds timeout, std::size_t chunk_bytes)
    : impl_(std::make_unique<Impl>()) {
  impl_->mpi.reset(
      find_function<OpenMpiWorld>(kOpenMpiWorld)(timeout, chunk_bytes, &launcher_may_be_ending_us));
}

MpiEnvironment::~MpiEnvironment() { finalize(); }

Communicator& MpiEnvironment::world() { return impl_->mpi->world(); }

void MpiEnvironment::finalize() { impl_->mpi->finalize(); }

std::string mpi_library_version() {
  try {
    std::string version;
    find_function<DescribeMpi>(kDescribeMpi)(version);
    return version;
  } catch (const CommError& error) {
    return error.what();
  }
}

}  // namespace moefy
