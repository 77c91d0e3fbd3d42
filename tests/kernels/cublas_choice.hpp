#pragma once

#include <cstdlib>
#include <string>

namespace moefy::test {

#ifdef MOEFY_SIMULATED_CUBLAS
inline constexpr const char* kCublas = MOEFY_SIMULATED_CUBLAS;
#else
inline constexpr const char* kCublas = "";  // what is found
#endif

/// While it lives, CUDA backends multiply by their own kernels, or by cuBLAS if there is one.
class CublasChoice {
 public:
  explicit CublasChoice(bool own_kernels) {
    const char* const named = std::getenv("MOEFY_CUBLAS");
    named_ = named != nullptr ? named : "";
    if (own_kernels || *kCublas != 0) setenv("MOEFY_CUBLAS", own_kernels ? "off" : kCublas, 1);
  }
  ~CublasChoice() {
    if (named_.empty())
      unsetenv("MOEFY_CUBLAS");
    else
      setenv("MOEFY_CUBLAS", named_.c_str(), 1);
  }
  CublasChoice(const CublasChoice&) = delete;
  CublasChoice& operator=(const CublasChoice&) = delete;

 private:
  std::string named_;  ///< MOEFY_CUBLAS as it was
};

}  // namespace moefy::test
