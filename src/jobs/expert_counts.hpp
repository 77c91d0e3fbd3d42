#pragma once

#include "moefy/jobs/calibrate.hpp"
#include "moefy/jobs/model_source.hpp"

namespace moefy {

/// The counts that `config` asks for; with shared experts of moefy's choice the nearest number of
/// them that an MoE host can carry. UsageError.
ExpertCounts carried_counts(const CalibrateConfig& config, const ModelSource& source);

}  // namespace moefy
