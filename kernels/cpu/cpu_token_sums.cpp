#include "cpu/cpu_token_sums.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cpu/blas_tiles.hpp"
#include "moefy/backend/host_token_sums.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cpu {

namespace {

class CpuProductSum final : public HostProductSum {
 public:
  CpuProductSum(std::size_t n, std::size_t m, ThreadPool& threads)
      : HostProductSum(n, m), threads_(threads) {}

  void add(const BackendMatrix& a, const BackendMatrix& b) override {
    add_product(a.on_host(), b.on_host(), false, sum_, threads_);
  }

 private:
  ThreadPool& threads_;
};

class CpuCholeskyFactor final : public CholeskyFactor {
 public:
  CpuCholeskyFactor(Matrix<double> matrix, ThreadPool& threads)
      : factor_(std::move(matrix)), threads_(threads) {
    if (!factorize(factor_, threads_)) refuse_indefinite();
  }
  void solve(ProductSum& rhs) const override {
    cpu::solve(factor_, static_cast<CpuProductSum&>(rhs).values(), threads_);
  }

 private:
  Matrix<double> factor_;
  ThreadPool& threads_;
};

class CpuGramSum final : public HostGramSum {
 public:
  CpuGramSum(std::size_t n, ThreadPool& threads) : HostGramSum(n), threads_(threads) {}

  void add(const BackendMatrix& a, std::size_t first, std::size_t count) override {
    const MatrixView<const float> all = a.on_host();
    require(first + count <= all.rows, "rows of the block");
    const MatrixView<const float> rows(all.data + first * all.cols, count, all.cols);
    add_product(rows, rows, true, sum_, threads_);
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
  std::unique_ptr<CholeskyFactor> factor(double added) const override {
    return std::make_unique<CpuCholeskyFactor>(with_diagonal(added), threads_);
  }

 private:
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
