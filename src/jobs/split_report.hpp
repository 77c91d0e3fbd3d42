#pragma once

#include <filesystem>

#include "moefy/jobs/context.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// The end of a split on rank 0: the table of layers and one line of summary on stdout, or JSON
/// lines (one "layer" each, then "split"). `queue_seconds`: wall time in which the layers were
/// done.
void report_split(JobContext& context, const ExpertMap& map, const std::filesystem::path& output,
                  const QueueStatistics& statistics, double queue_seconds);

}  // namespace moefy
