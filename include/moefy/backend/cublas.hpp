#pragma once

#include <string>

namespace moefy {

/// For `--version`: the cuBLAS that a CUDA backend would load, or why there is none.
std::string describe_cublas();

}  // namespace moefy
