#pragma once

#include <string>
#include <vector>

#include "gguf_file.hpp"
#include "moefy/checkpoint/checkpoint.hpp"

namespace moefy::gguf {

/// A tensor of the file and the checkpoint's tensors it is made of: one, or one an expert, stacked.
struct Source {
  TensorSpec spec;
  std::vector<const TensorInfo*> tensors;  ///< empty: zeros
  /// Rows of each head are interleaved for llama.cpp's rotary embedding: number of heads, 0: not.
  std::int64_t interleaved_heads = 0;
};

/// What llama.cpp calls a model and its tensors.
struct ModelLayout {
  std::string architecture;  ///< llama, qwen2moe, glm4moe
  std::vector<Source> tensors;
  std::int64_t vocab_size = 0;
};

/// Keys and tensors of a stock checkpoint. `type`: auto, f32, f16, bf16, of the matrices.
/// UsageError for a class or feature that the architecture cannot carry, InputError for missing
/// tensors.
ModelLayout lay_out_model(const Checkpoint& model, const std::string& type, Metadata& metadata);

}  // namespace moefy::gguf
