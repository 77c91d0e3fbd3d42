#pragma once

#include <cstddef>
#include <iosfwd>
#include <stop_token>
#include <string>

#include "moefy/comm/communicator.hpp"
#include "moefy/core/log.hpp"
#include "moefy/core/progress.hpp"

namespace moefy {

/// What every command gets beside its own options: the ranks, the screen, and when to stop.
struct JobContext {
  Communicator& comm;
  Log& log;
  /// Results (people's tables or JSON lines); only rank 0 writes.
  std::ostream& out;
  std::stop_token stop;
  std::size_t threads = 1;  ///< of this rank
  bool json = false;
  Progress::Style progress = Progress::Style::automatic;
  bool force = false;             ///< replace or redo what is there
  bool verify = true;             ///< --no-verify clears it
  std::string architecture_file;  ///< --architecture, empty: built-in families only
  std::string command_line;       ///< for provenance

  bool is_root() const { return comm.rank() == 0; }
};

}  // namespace moefy
