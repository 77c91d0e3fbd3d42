#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// `moefy verify`.
struct VerifyJobConfig {
  std::string model;             ///< path or name of the dense checkpoint
  std::filesystem::path output;  ///< what `moefy convert` made of it
  bool bound = false;            ///< print Σ_e |w_e - 1|·‖y_e‖ for every layer
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const VerifyJobConfig& config);

/// Proves that the output is the model rearranged: every byte of every tensor, config.json's
/// fields, and each FFN layer's function with all experts on. Ranks share files and layers.
/// Collective. ExitCode::differs with the first differences on context.out; InputError if something
/// cannot be read at all.
ExitCode run_verify(const VerifyJobConfig& config, JobContext& context);

}  // namespace moefy
