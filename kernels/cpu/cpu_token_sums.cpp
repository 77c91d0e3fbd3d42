#include "cpu/cpu_token_sums.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cpu/blas_tiles.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cpu {

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

class CpuProductSum final : public ProductSum {
 public:
  CpuProductSum(std::size_t n, std::size_t m, ThreadPool& threads)
      : sum_(zeros(n, m)), threads_(threads) {}

  void add(const BackendMatrix& a, const BackendMatrix& b) override {
    add_product(a.on_host(), b.on_host(), false, sum_, threads_);
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
  ThreadPool& threads_;
};

class CpuCholeskyFactor final : public CholeskyFactor {
 public:
  explicit CpuCholeskyFactor(Matrix<double> matrix) : factor_(std::move(matrix)) {
    if (!factorize(factor_)) refuse_indefinite();
  }
  void solve(ProductSum& rhs) const override {
    cpu::solve(factor_, static_cast<CpuProductSum&>(rhs).values());
  }

 private:
  Matrix<double> factor_;
};

class CpuGramSum final : public GramSum {
 public:
  CpuGramSum(std::size_t n, ThreadPool& threads) : sum_(zeros(n, n)), threads_(threads) {}

  void add(const BackendMatrix& a, std::size_t first, std::size_t count) override {
    const MatrixView<const float> all = a.on_host();
    require(first + count <= all.rows, "rows of the block");
    const MatrixView<const float> rows(all.data + first * all.cols, count, all.cols);
    add_product(rows, rows, true, sum_, threads_);
  }
  void subtract_outer(double scale, std::span<const double> v) override {
    require(v.size() == sum_.rows(), "a value a row");
    for (std::size_t i = 0; i < v.size(); ++i)
      for (std::size_t j = 0; j <= i; ++j) sum_.row(i)[j] -= scale * v[i] * v[j];
  }
  void add_clamped(GramSum& open, double quanta) override {
    Matrix<double>& from = static_cast<CpuGramSum&>(open).sum_;
    require(from.rows() == sum_.rows(), "sums of the same size");
    for_row_tiles(sum_.rows(), threads_, [&](std::size_t first, std::size_t count) {
      for (std::size_t i = first; i < first + count; ++i) {
        for (std::size_t j = 0; j <= i; ++j)
          sum_.row(i)[j] += std::round(std::min(1.0, from.row(i)[j]) * quanta);
        std::ranges::fill(from.row(i), 0.0);
      }
    });
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
    return std::make_unique<CpuCholeskyFactor>(std::move(matrix));
  }

 private:
  Matrix<double> sum_;
  ThreadPool& threads_;
};

}  // namespace

std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m, ThreadPool& threads) {
  return std::make_unique<CpuProductSum>(n, m, threads);
}

std::unique_ptr<GramSum> make_gram_sum(std::size_t n, ThreadPool& threads) {
  return std::make_unique<CpuGramSum>(n, threads);
}

}  // namespace moefy::cpu
