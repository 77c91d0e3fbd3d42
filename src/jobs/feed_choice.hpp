#pragma once

#include <optional>
#include <string>

#include "moefy/jobs/context.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/jobs/split.hpp"

namespace moefy {

/// Whether every rank reads its own layers, which needs that all can open the same files; else rank
/// 0 sends them. --feed may ask for either. `identity`: file_identity_json of rank 0's files. Ranks
/// other than 0 get their `source`. Collective, the same answer on all ranks. Throws InputError if
/// --feed local is asked for and cannot be.
bool choose_local_feed(const SplitJobConfig& config, JobContext& context,
                       const std::string& identity, std::optional<ModelSource>& source);

}  // namespace moefy
