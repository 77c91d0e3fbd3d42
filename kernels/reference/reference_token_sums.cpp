#include "reference/reference_token_sums.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "moefy/core/error.hpp"

namespace moefy::reference {

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

/// (aᵀ · b)[i, j] of rows [first, first + count), rounded to fp32.
double product(MatrixView<const float> a, MatrixView<const float> b, std::size_t first,
               std::size_t count, std::size_t i, std::size_t j) {
  double sum = 0;
  for (std::size_t t = first; t < first + count; ++t)
    sum += static_cast<double>(a.row(t)[i]) * static_cast<double>(b.row(t)[j]);
  return static_cast<double>(static_cast<float>(sum));
}

class ReferenceProductSum final : public ProductSum {
 public:
  ReferenceProductSum(std::size_t n, std::size_t m) : sum_(zeros(n, m)) {}

  void add(const BackendMatrix& a, const BackendMatrix& b) override {
    require(a.rows() == b.rows() && a.cols() == sum_.rows() && b.cols() == sum_.cols(),
            "a sum of the shape of its product");
    for (std::size_t i = 0; i < sum_.rows(); ++i)
      for (std::size_t j = 0; j < sum_.cols(); ++j)
        sum_.row(i)[j] += product(a.on_host(), b.on_host(), 0, a.rows(), i, j);
  }
  void subtract_outer(double scale, std::span<const double> left,
                      std::span<const double> right) override {
    require(left.size() == sum_.rows() && right.size() == sum_.cols(), "a value a row and column");
    for (std::size_t i = 0; i < left.size(); ++i)
      for (std::size_t j = 0; j < right.size(); ++j) sum_.row(i)[j] -= scale * left[i] * right[j];
  }
  Matrix<double> read() const override { return copy_of(sum_); }
  Matrix<double> take() override { return std::move(sum_); }
  Matrix<double>& values() { return sum_; }

 private:
  Matrix<double> sum_;
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

class ReferenceGramSum final : public GramSum {
 public:
  explicit ReferenceGramSum(std::size_t n) : sum_(zeros(n, n)) {}

  void add(const BackendMatrix& a, std::size_t first, std::size_t count) override {
    require(a.cols() == sum_.rows() && first + count <= a.rows(), "rows of the block");
    for (std::size_t i = 0; i < sum_.rows(); ++i)
      for (std::size_t j = 0; j <= i; ++j)
        sum_.row(i)[j] += product(a.on_host(), a.on_host(), first, count, i, j);
  }
  void subtract_outer(double scale, std::span<const double> v) override {
    require(v.size() == sum_.rows(), "a value a row");
    for (std::size_t i = 0; i < v.size(); ++i)
      for (std::size_t j = 0; j <= i; ++j) sum_.row(i)[j] -= scale * v[i] * v[j];
  }
  void add_clamped(GramSum& open, double quanta) override {
    Matrix<double>& from = static_cast<ReferenceGramSum&>(open).sum_;
    require(from.rows() == sum_.rows(), "sums of the same size");
    for (std::size_t i = 0; i < sum_.rows(); ++i)
      for (std::size_t j = 0; j <= i; ++j)
        sum_.row(i)[j] += std::round(std::min(1.0, from.row(i)[j]) * quanta);
    std::ranges::fill(from.values(), 0.0);
  }
  std::vector<double> diagonal() const override {
    std::vector<double> values;
    for (std::size_t i = 0; i < sum_.rows(); ++i) values.push_back(sum_.row(i)[i]);
    return values;
  }
  Matrix<double> take() override { return std::move(sum_); }
  std::unique_ptr<CholeskyFactor> factor(double added) const override {
    Matrix<double> matrix = copy_of(sum_);
    for (std::size_t i = 0; i < matrix.rows(); ++i) matrix.row(i)[i] += added;
    return std::make_unique<ReferenceFactor>(std::move(matrix));
  }

 private:
  Matrix<double> sum_;
};

}  // namespace

std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m) {
  return std::make_unique<ReferenceProductSum>(n, m);
}

std::unique_ptr<GramSum> make_gram_sum(std::size_t n) {
  return std::make_unique<ReferenceGramSum>(n);
}

}  // namespace moefy::reference
