#pragma once

#include <span>
#include <string>

#include "moefy/jobs/context.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// The map's /run group: versions, host, options of the run, command line, seconds by layer.
RunRecord make_run_record(const JobContext& context, const std::string& backend,
                          const std::string& run_options, std::span<const LayerResult> layers);

}  // namespace moefy
