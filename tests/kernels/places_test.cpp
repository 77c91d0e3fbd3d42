// Bits of fp32 costs, wherever a row and a column stand among the others.
#include <numeric>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "kernels/cublas_choice.hpp"
#include "moefy/backend/cublas.hpp"

namespace moefy {
namespace {

constexpr int kScale = 18;

/// Runs with "cpu", "cuda" (products by our own kernels) and "cuda-cublas".
class PlacesTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "cpu") return;
    if (cuda_device_count() == 0) GTEST_SKIP() << "no NVIDIA GPU here";
    const bool own_kernels = GetParam() == "cuda";
    cublas_.emplace(own_kernels);
    if (!own_kernels && describe_cublas().starts_with("no")) GTEST_SKIP() << "no cuBLAS here";
  }
  static std::unique_ptr<Backend> backend() {
    return GetParam() == "cpu" ? make_cpu_backend(2) : make_cuda_backend(0, 2);
  }

 private:
  std::optional<test::CublasChoice> cublas_;
};

/// Row a of the result is row order[a] of `from`.
Matrix<float> permuted(const Matrix<float>& from, const std::vector<std::size_t>& order) {
  Matrix<float> to(order.size(), from.cols());
  for (std::size_t a = 0; a < order.size(); ++a) {
    std::ranges::copy(from.row(order[a]), to.row(a).begin());
  }
  return to;
}

Matrix<std::int32_t> costs(Backend& backend, const Matrix<float>& rows,
                           const Matrix<float>& centroids) {
  const auto points = backend.make_points();
  backend.load(*points, rows.view(), false);
  const CostView q = backend.cost_buffer(0, rows.rows(), centroids.rows());
  backend.costs(*points, centroids.view(), kScale, test::all_columns(centroids.rows()), q);
  const CostView found = backend.on_host(q);
  Matrix<std::int32_t> values(rows.rows(), centroids.rows());
  for (std::size_t i = 0; i < values.rows(); ++i) {
    std::copy_n(found.row(i), values.cols(), values.row(i).begin());
  }
  return values;
}

/// The first `by` go to the end.
std::vector<std::size_t> rotated(std::size_t count, std::size_t by) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::rotate(order, order.begin() + static_cast<std::ptrdiff_t>(by % count));
  return order;
}

// cuBLAS multiplies blocks of rows and columns of one shape, but how it splits the sums of a block
// among the multiprocessors is its own affair.
TEST_P(PlacesTest, costs_do_not_depend_on_the_places_of_rows_and_columns) {
  std::vector<test::Shape> shapes{{100, 20, 65},
                                  {cuda::kBlasRows + 52, cuda::kBlasColumns + 6, 33}};
#ifndef MOEFY_SIMULATED_CUBLAS
  shapes.push_back({cuda::kBlasRows + 52, cuda::kBlasColumns, 4096});
#endif
  const auto backend = this->backend();
  for (const test::Shape& shape : shapes) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    const Matrix<float> rows = test::normal_matrix(shape.rows, shape.dim, 1);
    const Matrix<float> centroids = test::normal_matrix(shape.sites, shape.dim, 2);
    const Matrix<std::int32_t> expected = costs(*backend, rows, centroids);
    for (const auto& [by_rows, by_columns] : {std::pair{1, 1}, {43, 11}, {1025, 33}}) {
      SCOPED_TRACE(by_rows);
      const auto row_order = rotated(shape.rows, static_cast<std::size_t>(by_rows));
      const auto column_order = rotated(shape.sites, static_cast<std::size_t>(by_columns));

      const Matrix<std::int32_t> found =
          costs(*backend, permuted(rows, row_order), permuted(centroids, column_order));

      for (std::size_t a = 0; a < shape.rows; ++a) {
        for (std::size_t c = 0; c < shape.sites; ++c) {
          ASSERT_EQ(found.row(a)[c], expected.row(row_order[a])[column_order[c]])
              << "row " << row_order[a] << " column " << column_order[c];
        }
      }
    }
  }
}

std::vector<std::string> backends() {
  std::vector<std::string> names = {"cpu"};
  if (cuda_is_built()) names.insert(names.end(), {"cuda", "cuda-cublas"});
  return names;
}

INSTANTIATE_TEST_SUITE_P(Backends, PlacesTest, testing::ValuesIn(backends()), test::test_suffix);

}  // namespace
}  // namespace moefy
