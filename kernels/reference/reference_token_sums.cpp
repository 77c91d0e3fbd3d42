#include "reference/reference_token_sums.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "moefy/backend/host_token_sums.hpp"
#include "moefy/core/error.hpp"

namespace moefy::reference {

namespace {

/// (aᵀ · b)[i, j] of rows [first, first + count), rounded to fp32.
double product(MatrixView<const float> a, MatrixView<const float> b, std::size_t first,
               std::size_t count, std::size_t i, std::size_t j) {
  double sum = 0;
  for (std::size_t t = first; t < first + count; ++t)
    sum += static_cast<double>(a.row(t)[i]) * static_cast<double>(b.row(t)[j]);
  return static_cast<double>(static_cast<float>(sum));
}

class ReferenceProductSum final : public HostProductSum {
 public:
  ReferenceProductSum(std::size_t n, std::size_t m) : HostProductSum(n, m) {}

  void add(const BackendMatrix& a, const BackendMatrix& b) override {
    require(a.rows() == b.rows() && a.cols() == sum_.rows() && b.cols() == sum_.cols(),
            "a sum of the shape of its product");
    for (std::size_t i = 0; i < sum_.rows(); ++i)
      for (std::size_t j = 0; j < sum_.cols(); ++j)
        sum_.row(i)[j] += product(a.on_host(), b.on_host(), 0, a.rows(), i, j);
  }
};

class ReferenceFactor final : public CholeskyFactor {
 public:
  /// Of the lower triangle, row by row.
  explicit ReferenceFactor(Matrix<double> matrix) : factor_(std::move(matrix)) {
    for (std::size_t i = 0; i < factor_.rows(); ++i) {
      for (std::size_t j = 0; j <= i; ++j) {
        double rest = factor_.row(i)[j];
        for (std::size_t l = 0; l < j; ++l) rest -= factor_.row(i)[l] * factor_.row(j)[l];
        if (j < i) {
          factor_.row(i)[j] = rest / factor_.row(j)[j];
          continue;
        }
        if (!(rest > 0) || !std::isfinite(rest)) refuse_indefinite();
        factor_.row(i)[i] = std::sqrt(rest);
      }
    }
  }

  void solve(ProductSum& rhs) const override {
    Matrix<double>& x = static_cast<ReferenceProductSum&>(rhs).values();
    require(x.rows() == factor_.rows(), "as many rows as the factor");
    const std::size_t n = factor_.rows();
    for (std::size_t c = 0; c < x.cols(); ++c) {
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t l = 0; l < i; ++l) x.row(i)[c] -= factor_.row(i)[l] * x.row(l)[c];
        x.row(i)[c] /= factor_.row(i)[i];
      }
      for (std::size_t i = n; i-- > 0;) {
        for (std::size_t l = i + 1; l < n; ++l) x.row(i)[c] -= factor_.row(l)[i] * x.row(l)[c];
        x.row(i)[c] /= factor_.row(i)[i];
      }
    }
  }

 private:
  Matrix<double> factor_;
};

class ReferenceGramSum final : public HostGramSum {
 public:
  explicit ReferenceGramSum(std::size_t n) : HostGramSum(n) {}

  void add(const BackendMatrix& a, std::size_t first, std::size_t count) override {
    require(a.cols() == sum_.rows() && first + count <= a.rows(), "rows of the block");
    for (std::size_t i = 0; i < sum_.rows(); ++i)
      for (std::size_t j = 0; j <= i; ++j)
        sum_.row(i)[j] += product(a.on_host(), a.on_host(), first, count, i, j);
  }
  void add_clamped(GramSum& open, double quanta) override {
    Matrix<double>& from = static_cast<ReferenceGramSum&>(open).sum_;
    require(from.rows() == sum_.rows(), "sums of the same size");
    for (std::size_t i = 0; i < sum_.rows(); ++i)
      for (std::size_t j = 0; j <= i; ++j)
        sum_.row(i)[j] += std::round(std::min(1.0, from.row(i)[j]) * quanta);
    std::ranges::fill(from.values(), 0.0);
  }
  std::unique_ptr<CholeskyFactor> factor(double added) const override {
    return std::make_unique<ReferenceFactor>(with_diagonal(added));
  }
};

}  // namespace

std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m) {
  return std::make_unique<ReferenceProductSum>(n, m);
}

std::unique_ptr<GramSum> make_gram_sum(std::size_t n) {
  return std::make_unique<ReferenceGramSum>(n);
}

}  // namespace moefy::reference
