#include "cuda/token_products.hpp"

#include <algorithm>

#include "cuda/token_kernels.hpp"
#include "cuda/token_sum_kernels.hpp"

namespace moefy::cuda {
namespace {

/// Rows of a sum whose fp32 products are in memory at a time.
constexpr std::size_t kSumRows = 1024;

}  // namespace

void TokenProducts::multiply(const Operand<float>& a, const Operand<float>& b, std::size_t m,
                             std::size_t n, std::size_t k, float* out) {
  if (m == 0 || n == 0) return;
  if (k > 0 && blas_.is_there()) {
    blas_.multiply(a, b, m, n, k, out);
  } else {
    own_products(a, b, m, n, k, out, stream_.handle());
  }
}

void TokenProducts::add_block(const float* a, std::size_t n, const float* b, std::size_t m,
                              std::size_t k, bool lower, double* sum) {
  if (k == 0) return;
  const Operand<float> right{b, m, true};
  if (!blas_.is_there()) {
    add_own_products({a, n, true}, right, n, m, k, lower, sum, stream_.handle());
    return;
  }
  for (std::size_t first = 0; first < n; first += kSumRows) {
    const std::size_t rows = std::min(kSumRows, n - first);
    const std::size_t cols = lower ? first + rows : m;
    float* const tile = tile_.resize(std::min(kSumRows, n) * m);
    multiply({a + first, n, true}, right, rows, cols, k, tile);
    add_products(tile, rows, cols, sum + first * m, m, stream_.handle());
  }
}

}  // namespace moefy::cuda
