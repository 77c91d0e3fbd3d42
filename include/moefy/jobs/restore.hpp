#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// `moefy restore`.
struct RestoreJobConfig {
  std::filesystem::path converted;  ///< what `moefy convert` made
  std::filesystem::path output;     ///< folder to make: the dense checkpoint
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const RestoreJobConfig& config);

/// Writes the dense checkpoint back from the converted directory alone: the same tensors (name,
/// dtype, shape, bytes) and config.json. Ranks share the files. Collective. An existing output is
/// refused (UsageError) unless context.force.
ExitCode run_restore(const RestoreJobConfig& config, JobContext& context);

}  // namespace moefy
