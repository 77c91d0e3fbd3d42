// The plain loops behind RowLoops. Internal linkage on purpose: each instruction set compiles its
// own, and the compiler makes vectors of them.

#include <cstddef>

namespace {

double squared_norm(const float* row, std::size_t size) {
  constexpr std::size_t kParts = 16;
  double part[kParts] = {};
  std::size_t l = 0;
  for (; l + kParts <= size; l += kParts) {
    for (std::size_t p = 0; p < kParts; ++p) {
      part[p] += static_cast<double>(row[l + p]) * static_cast<double>(row[l + p]);
    }
  }
  for (std::size_t p = 0; l < size; ++l, ++p) {
    part[p] += static_cast<double>(row[l]) * static_cast<double>(row[l]);
  }
  for (std::size_t half = kParts / 2; half > 0; half /= 2) {
    for (std::size_t p = 0; p < half; ++p) part[p] += part[p + half];
  }
  return part[0];
}

void add_scaled(double factor, const float* row, std::size_t size, double* sum) {
  for (std::size_t l = 0; l < size; ++l) sum[l] += factor * static_cast<double>(row[l]);
}

}  // namespace
