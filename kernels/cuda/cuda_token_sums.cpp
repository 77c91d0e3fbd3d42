#include "cuda/cuda_token_sums.hpp"

#include "cuda/cholesky_kernels.hpp"
#include "cuda/cuda_matrix.hpp"
#include "cuda/token_sum_kernels.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

/// fp64 values [rows, cols] in device memory, zero at first.
class DeviceSum {
 public:
  DeviceSum(std::size_t rows, std::size_t cols, const SumPlace& place)
      : rows_(rows), cols_(cols), place_(place) {
    enter();
    place.stream.fill(values_.resize(rows * cols), 0, rows * cols);
  }

  /// The calling thread works with the device from now on.
  void enter() const { check(cudaSetDevice(place_.device), "choosing the device"); }
  const SumPlace& place() const { return place_; }
  Stream& stream() const { return place_.stream; }
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  double* data() const { return values_.data(); }

  void subtract_outer(double scale, std::span<const double> left, std::span<const double> right) {
    require(left.size() == rows_ && right.size() == cols_, "a value a row and column");
    enter();
    stream().upload(left, left_.resize(rows_));
    stream().upload(right, right_.resize(cols_));
    cuda::subtract_outer(scale, left_.data(), right_.data(), rows_, cols_, data(),
                         stream().handle());
  }
  Matrix<double> read() const {
    enter();
    Matrix<double> values(rows_, cols_);
    download_to<double>(stream(), data(), values.values());
    return values;
  }

 private:
  std::size_t rows_, cols_;
  SumPlace place_;
  DeviceBuffer<double> values_;
  DeviceBuffer<double> left_, right_;
};

class CudaProductSum final : public ProductSum {
 public:
  CudaProductSum(std::size_t n, std::size_t m, const SumPlace& place) : sum_(n, m, place) {}

  void add(const BackendMatrix& a, const BackendMatrix& b) override {
    require(a.rows() == b.rows() && a.cols() == sum_.rows() && b.cols() == sum_.cols(),
            "a sum of the shape of its product");
    sum_.enter();
    sum_.place().products.add_block(own(a).data(), a.cols(), own(b).data(), b.cols(), a.rows(),
                                    false, sum_.data());
  }
  void subtract_outer(double scale, std::span<const double> left,
                      std::span<const double> right) override {
    sum_.subtract_outer(scale, left, right);
  }
  Matrix<double> read() const override { return sum_.read(); }
  Matrix<double> take() override { return sum_.read(); }
  DeviceSum& sum() { return sum_; }

 private:
  DeviceSum sum_;
};

class CudaCholeskyFactor final : public CholeskyFactor {
 public:
  /// Of matrix + added · I.
  CudaCholeskyFactor(const DeviceSum& matrix, double added)
      : n_(matrix.rows()), place_(matrix.place()) {
    Stream& stream = place_.stream;
    matrix.enter();
    stream.copy_on_device<double>(matrix.data(), factor_.resize(n_ * n_), n_ * n_);
    add_to_diagonal(factor_.data(), n_, added, stream.handle());
    DeviceBuffer<int> failed;
    stream.fill(failed.resize(1), 0, 1);
    cholesky_factor(factor_.data(), n_, failed.data(), stream.handle());
    const std::span<const int> answer = stream.download<int>(failed.data(), 1);
    stream.wait();
    if (answer[0] != 0) refuse_indefinite();
  }

  void solve(ProductSum& rhs) const override {
    const DeviceSum& x = static_cast<CudaProductSum&>(rhs).sum();
    require(x.rows() == n_, "as many rows as the factor");
    x.enter();
    cholesky_solve(factor_.data(), n_, x.data(), x.cols(), place_.stream.handle());
  }

 private:
  std::size_t n_;
  SumPlace place_;
  DeviceBuffer<double> factor_;
};

class CudaGramSum final : public GramSum {
 public:
  CudaGramSum(std::size_t n, const SumPlace& place) : sum_(n, n, place) {}

  void add(const BackendMatrix& a, std::size_t first, std::size_t count) override {
    require(a.cols() == sum_.rows() && first + count <= a.rows(), "rows of the block");
    sum_.enter();
    const float* const rows = own(a).data() + first * a.cols();
    sum_.place().products.add_block(rows, a.cols(), rows, a.cols(), count, true, sum_.data());
  }
  void subtract_outer(double scale, std::span<const double> v) override {
    sum_.subtract_outer(scale, v, v);
  }
  void add_clamped(GramSum& open, double quanta) override {
    const DeviceSum& from = static_cast<CudaGramSum&>(open).sum_;
    require(from.rows() == sum_.rows(), "sums of the same size");
    sum_.enter();
    cuda::add_clamped(from.data(), quanta, sum_.rows(), sum_.data(), sum_.stream().handle());
  }
  std::vector<double> diagonal() const override {
    sum_.enter();
    DeviceBuffer<double> values;
    read_diagonal(sum_.data(), sum_.rows(), values.resize(sum_.rows()), sum_.stream().handle());
    std::vector<double> diagonal(sum_.rows());
    download_to<double>(sum_.stream(), values.data(), diagonal);
    return diagonal;
  }
  Matrix<double> take() override { return sum_.read(); }
  std::unique_ptr<CholeskyFactor> factor(double added) const override {
    return std::make_unique<CudaCholeskyFactor>(sum_, added);
  }

 private:
  DeviceSum sum_;
};

}  // namespace

std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m, const SumPlace& place) {
  return std::make_unique<CudaProductSum>(n, m, place);
}

std::unique_ptr<GramSum> make_gram_sum(std::size_t n, const SumPlace& place) {
  return std::make_unique<CudaGramSum>(n, place);
}

}  // namespace moefy::cuda
