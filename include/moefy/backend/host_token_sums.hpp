#pragma once

#include <utility>

#include "moefy/backend/token_sums.hpp"

namespace moefy {

/// What sums of backends that compute on the host have in common: all but how products are made.
class HostProductSum : public ProductSum {
 public:
  HostProductSum(std::size_t n, std::size_t m);
  void subtract_outer(double scale, std::span<const double> left,
                      std::span<const double> right) override;
  Matrix<double> read() const override;
  Matrix<double> take() override { return std::move(sum_); }
  Matrix<double>& values() { return sum_; }

 protected:
  Matrix<double> sum_;
};

/// The same of Gram matrices.
class HostGramSum : public GramSum {
 public:
  explicit HostGramSum(std::size_t n);
  void subtract_outer(double scale, std::span<const double> v) override;
  std::vector<double> diagonal() const override;
  Matrix<double> take() override { return std::move(sum_); }

 protected:
  /// sum + added · I.
  Matrix<double> with_diagonal(double added) const;

  Matrix<double> sum_;
};

}  // namespace moefy
