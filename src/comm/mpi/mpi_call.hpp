#pragma once

#include <mpi.h>

#include <string>

#include "moefy/core/error.hpp"

namespace moefy {

/// Prints the one message of this rank and ends the whole job. After a failed MPI call no
/// collective can tell the others any more, so nothing is thrown.
[[noreturn]] void end_job(ExitCode code, const std::string& message);

/// From now on end_job lets the launcher end this process, in silence, if that seems to be under
/// way: then another rank has spoken.
void be_silent_if(bool (*ended_by_launcher)());

/// Ends the job (exit 5) if the MPI function `call` did not return MPI_SUCCESS. `detail` says with
/// whom or about what, such as "to rank 3".
void check_mpi(int result, const char* call, const std::string& detail = {});

}  // namespace moefy
