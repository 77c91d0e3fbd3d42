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
/// Initialises MPI; the caller owns the result. `ended_by_launcher`: whether the launcher seems to
/// be ending this process (the library has its own copy of moefy's functions, which knows no
/// signals).
using OpenMpiWorld = MpiWorld*(std::chrono::milliseconds timeout, std::size_t chunk_bytes,
                               bool (*ended_by_launcher)());
inline constexpr const char* kOpenMpiWorld = "moefy_open_mpi_world";
/// Name and version of the MPI library; needs no initialisation.
using DescribeMpi = void(std::string& version);
inline constexpr const char* kDescribeMpi = "moefy_describe_mpi";
}

}  // namespace moefy
