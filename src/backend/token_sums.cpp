#include "moefy/backend/token_sums.hpp"

#include <algorithm>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

double mean_of_diagonal(const GramSum& gram) {
  const std::vector<double> diagonal = gram.diagonal();
  return std::accumulate(diagonal.begin(), diagonal.end(), 0.0) /
         static_cast<double>(std::max<std::size_t>(1, diagonal.size()));
}

}  // namespace

void refuse_indefinite() {
  throw InputError("a matrix of sums over tokens is not positive definite");
}

std::unique_ptr<CholeskyFactor> ridge_factor(const GramSum& gram, double ridge, double* used) {
  constexpr int kMostRaises = 6;
  const double mean = mean_of_diagonal(gram);
  for (int raise = 0;; ++raise, ridge *= 10) {
    try {
      std::unique_ptr<CholeskyFactor> factor = gram.factor(ridge * mean);
      if (used) *used = ridge;
      return factor;
    } catch (const InputError&) {
      if (raise == kMostRaises) throw;
    }
  }
}

}  // namespace moefy
