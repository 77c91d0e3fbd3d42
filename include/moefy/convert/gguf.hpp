#pragma once

#include <filesystem>
#include <stop_token>
#include <string>

#include "moefy/checkpoint/checkpoint.hpp"

namespace moefy {

/// Writes a stock model directory (dense llama or mistral, mixtral, qwen2_moe, glm4_moe) as one
/// GGUF file of version 3 for llama.cpp, tokenizer included. `type`: auto (the matrices' own), f32,
/// f16, bf16; vectors and routers are always F32. Streams: a block of a tensor is in memory at a
/// time. The file appears by fsync and rename. Throws UsageError (a class or a feature that
/// llama.cpp's architecture cannot carry, a file in the way), InputError (tokenizer missing or of a
/// kind that is not known, a value beyond f16), IoError, Interrupted.
void export_gguf(const Checkpoint& model, const std::filesystem::path& file,
                 const std::string& type, bool replace, std::stop_token stop);

/// UsageError unless export_gguf could write this model: asked before any work, with the
/// config.json and the model_type of the result.
void check_gguf(const std::string& config_text, const std::string& place);

}  // namespace moefy
