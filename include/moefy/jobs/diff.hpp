#pragma once

#include <filesystem>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// `moefy diff`.
struct DiffJobConfig {
  std::filesystem::path first;
  std::filesystem::path second;
};

/// Compares two expert maps and prints moved neurons, matched experts and the adjusted mutual
/// information of every layer. Works on rank 0, the others return at once. ExitCode::differs unless
/// all results are equal (/run does not count). Errors as read_expert_map.
ExitCode run_diff(const DiffJobConfig& config, JobContext& context);

}  // namespace moefy
