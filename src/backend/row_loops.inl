// The plain loops behind RowLoops. Internal linkage on purpose: each instruction set compiles its
// own, and the compiler makes vectors of them.

#include <cstddef>
#include <cstdint>

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

inline std::int32_t smaller(std::int32_t a, std::int32_t b) { return a < b ? a : b; }
inline std::int32_t larger(std::int32_t a, std::int32_t b) { return a < b ? b : a; }

moefy::TwoCheapest two_cheapest(const std::int32_t* costs, const std::int32_t* prices,
                                std::size_t size) {
  constexpr std::size_t kParts = 16;
  std::int32_t best[kParts];
  std::int32_t second[kParts];
  for (std::size_t p = 0; p < kParts; ++p) best[p] = second[p] = INT32_MAX;
  for (std::size_t j = 0; j < size; j += kParts) {
    for (std::size_t p = 0; p < kParts; ++p) {
      const std::int32_t value = costs[j + p] + prices[j + p];
      second[p] = smaller(second[p], larger(best[p], value));
      best[p] = smaller(best[p], value);
    }
  }
  for (std::size_t p = 1; p < kParts; ++p) {
    second[0] = smaller(smaller(second[0], second[p]), larger(best[0], best[p]));
    best[0] = smaller(best[0], best[p]);
  }
  std::size_t site = 0;
  while (costs[site] + prices[site] != best[0]) ++site;
  return {best[0], second[0], site};
}

}  // namespace
