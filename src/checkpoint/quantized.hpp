#pragma once

#include <span>
#include <string>

#include "moefy/checkpoint/checkpoint.hpp"

namespace moefy {

/// Throws InputError naming the method if the weights are quantised: by config.json (GPTQ, AWQ,
/// bitsandbytes, FP8, …) or by tensors that only such checkpoints have. `config_text` has passed
/// check_json_object.
void refuse_quantized(const std::string& config_text, std::span<const TensorInfo> tensors,
                      const std::string& directory);

}  // namespace moefy
