#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "moefy/backend/backend_matrix.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

// Sums over tokens live where the backend computes: a block of tokens (its rows) is multiplied in
// fp32 and added in fp64, in the order of the calls. Operands and results of one call belong to one
// backend. Every call may throw DeviceError.

/// Σ over blocks of aᵀ · b [n, m]; zero at first.
class ProductSum {
 public:
  virtual ~ProductSum() = default;
  /// a [T, n], b [T, m].
  virtual void add(const BackendMatrix& a, const BackendMatrix& b) = 0;
  /// Less scale · left · rightᵀ, (scale · left_i) · right_j for each element; left [n], right [m].
  virtual void subtract_outer(double scale, std::span<const double> left,
                              std::span<const double> right) = 0;
  /// A copy.
  virtual Matrix<double> read() const = 0;
  /// The values; the sum ends.
  virtual Matrix<double> take() = 0;
};

/// The Cholesky factor of a symmetric positive definite matrix in fp64.
class CholeskyFactor {
 public:
  virtual ~CholeskyFactor() = default;
  /// rhs [n, m] becomes matrix⁻¹ · rhs.
  virtual void solve(ProductSum& rhs) const = 0;
};

/// Σ over blocks of aᵀ · a [n, n], the lower triangle of it; zero at first.
class GramSum {
 public:
  virtual ~GramSum() = default;
  /// Rows [first, first + count) of a [*, n].
  virtual void add(const BackendMatrix& a, std::size_t first, std::size_t count) = 0;
  void add(const BackendMatrix& a) { add(a, 0, a.rows()); }
  /// Less (scale · v_i) · v_j for each element; v [n].
  virtual void subtract_outer(double scale, std::span<const double> v) = 0;
  /// Plus min(1, open) · quanta, rounded to whole numbers (halves away from zero); `open`, of the
  /// same size, becomes zero.
  virtual void add_clamped(GramSum& open, double quanta) = 0;
  /// [n].
  virtual std::vector<double> diagonal() const = 0;
  /// The lower triangle, what lies above it undefined; the sum ends.
  virtual Matrix<double> take() = 0;
  /// The factor of the sum + added · I. InputError if that is not positive definite (or not
  /// finite).
  virtual std::unique_ptr<CholeskyFactor> factor(double added) const = 0;
};

/// The InputError of GramSum::factor.
[[noreturn]] void refuse_indefinite();

/// The factor of gram + ridge · mean(diagonal) · I. If that is not positive definite in fp64, ridge
/// is raised tenfold, at most six times; then InputError. `used` gets the ridge that worked.
std::unique_ptr<CholeskyFactor> ridge_factor(const GramSum& gram, double ridge,
                                             double* used = nullptr);

}  // namespace moefy
