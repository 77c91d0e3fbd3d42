#pragma once

#include <exception>

namespace moefy {

template <class Phase>
void together(Communicator& comm, Phase&& phase) {
  std::optional<RankError> mine;
  try {
    phase();
  } catch (const Error& error) {
    mine = RankError{error.code(), error.what(), comm.rank()};
  } catch (const std::exception& error) {
    mine = RankError{ExitCode::internal, error.what(), comm.rank()};
  }
  all_ok(comm, mine);
}

}  // namespace moefy
