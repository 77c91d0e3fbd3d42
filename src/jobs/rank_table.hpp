#pragma once

#include <string>

#include "moefy/jobs/context.hpp"

namespace moefy {

/// Rank 0 prints one table: rank, host, pid, threads, backend, memory free and total, and below it
/// how the layers reach the ranks. One line in words for a single rank. Collective.
void show_rank_table(JobContext& context, const std::string& backend, const std::string& layers);

}  // namespace moefy
