#pragma once

#include <cstdlib>
#include <optional>
#include <string>

#include "moefy/core/error.hpp"

namespace moefy {

/// Writes the one message of a rank that ends the job, and the last line with the exit code, to
/// stderr in a single write so that lines of other ranks cannot come between.
void print_last_words(std::optional<int> rank, ExitCode code, const std::string& message);

}  // namespace moefy
