#include "moefy/backend/host_token_sums.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

Matrix<double> zeros(std::size_t rows, std::size_t cols) {
  Matrix<double> matrix(rows, cols);
  std::ranges::fill(matrix.values(), 0.0);
  return matrix;
}

Matrix<double> copy_of(const Matrix<double>& matrix) {
  Matrix<double> copy(matrix.rows(), matrix.cols());
  std::ranges::copy(matrix.values(), copy.values().begin());
  return copy;
}

}  // namespace

HostProductSum::HostProductSum(std::size_t n, std::size_t m) : sum_(zeros(n, m)) {}

void HostProductSum::subtract_outer(double scale, std::span<const double> left,
                                    std::span<const double> right) {
  require(left.size() == sum_.rows() && right.size() == sum_.cols(), "a value a row and column");
  for (std::size_t i = 0; i < left.size(); ++i)
    for (std::size_t j = 0; j < right.size(); ++j) sum_.row(i)[j] -= scale * left[i] * right[j];
}

Matrix<double> HostProductSum::read() const { return copy_of(sum_); }

HostGramSum::HostGramSum(std::size_t n) : sum_(zeros(n, n)) {}

void HostGramSum::subtract_outer(double scale, std::span<const double> v) {
  require(v.size() == sum_.rows(), "a value a row");
  for (std::size_t i = 0; i < v.size(); ++i)
    for (std::size_t j = 0; j <= i; ++j) sum_.row(i)[j] -= scale * v[i] * v[j];
}

std::vector<double> HostGramSum::diagonal() const {
  std::vector<double> values;
  for (std::size_t i = 0; i < sum_.rows(); ++i) values.push_back(sum_.row(i)[i]);
  return values;
}

Matrix<double> HostGramSum::with_diagonal(double added) const {
  Matrix<double> matrix = copy_of(sum_);
  for (std::size_t i = 0; i < matrix.rows(); ++i) matrix.row(i)[i] += added;
  return matrix;
}

}  // namespace moefy
