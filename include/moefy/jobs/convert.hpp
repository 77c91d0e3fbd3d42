#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// `moefy convert`.
struct ConvertJobConfig {
  std::string model;             ///< path or name
  std::filesystem::path map;     ///< made by `moefy split` of that model
  std::filesystem::path output;  ///< folder to make
  ConvertConfig convert;
  std::filesystem::path gguf;      ///< file for llama.cpp beside it; empty: none
  std::string gguf_type = "auto";  ///< of its matrices: auto, f32, f16, bf16
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const ConvertJobConfig& config);

/// Writes the converted checkpoint; all ranks write files of it. Collective. Unless context.verify
/// is off, every FFN layer is read back and compared with the dense one, all experts on
/// (InternalError naming layer and neuron). The output appears complete or not at all; one that
/// stands already with an equal manifest is left alone ("already done"), any other is refused
/// (UsageError) unless context.force. Then rank 0 writes the GGUF file, if one is asked for.
ExitCode run_convert(const ConvertJobConfig& config, JobContext& context);

}  // namespace moefy
