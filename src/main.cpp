#include <cstdlib>

#include "moefy/cli/run.hpp"

namespace {

constexpr const char* kBlasThreads = "OPENBLAS_NUM_THREADS";
bool is_held = false;

/// OpenBLAS begins with a thread a core, and they spin for tens of milliseconds; only one is ever
/// used. This runs before the initialisation of a statically linked OpenBLAS.
[[gnu::constructor(101)]] void hold_blas_to_one_thread() {
  is_held = getenv(kBlasThreads) == nullptr && setenv(kBlasThreads, "1", 0) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (is_held) unsetenv(kBlasThreads);  // Programs started from here have threads of their own.
  return moefy::run_program(argc, argv);
}
