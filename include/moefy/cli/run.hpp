#pragma once

namespace moefy {

/// The whole program: options, ranks, signals, the command, the exit code. Everything wrong with
/// the options is told before any file is read or MPI call made.
int run_program(int argc, char** argv);

}  // namespace moefy
