#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "moefy/comm/communicator.hpp"

namespace moefy {

/// What libmoefy_mpi.so (src/comm/mpi) gives: the only part that is linked with MPI, loaded when
/// the process was started by a launcher. See MpiEnvironment.
class MpiWorld {
 public:
  virtual ~MpiWorld() = default;
  virtual Communicator& world() = 0;
  virtual void finalize() = 0;
};

/// The functions of libmoefy_mpi.so, by name.
extern "C" {
/// Initialises MPI; the caller owns the result.
using OpenMpiWorld = MpiWorld*(std::chrono::milliseconds timeout, std::size_t chunk_bytes);
inline constexpr const char* kOpenMpiWorld = "moefy_open_mpi_world";
/// Name and version of the MPI library; needs no initialisation.
using DescribeMpi = void(std::string& version);
inline constexpr const char* kDescribeMpi = "moefy_describe_mpi";
}

}  // namespace moefy
