// Products by a cuBLAS that is loaded at run time, beside our own kernels.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "device_errors.hpp"
#include "kernels/backends.hpp"
#include "moefy/backend/cublas.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

using test::device_error_of;

namespace fs = std::filesystem;

class CudaBlasTest : public testing::Test {
 protected:
  void SetUp() override { simt::set_device_count(1); }
  void TearDown() override {
    simt::fail("");
    unsetenv("MOEFY_CUBLAS");
  }
  static std::unique_ptr<Backend> backend_with(const char* library) {
    setenv("MOEFY_CUBLAS", library, 1);
    return make_cuda_backend(0, 1);
  }
};

constexpr int kScale = 18;

std::vector<std::int32_t> values(Backend& backend, const CostView& q) {
  const CostView costs = backend.on_host(q);
  return {costs.data, costs.data + costs.num_rows * costs.stride};
}

/// Costs of every kind of the same rows.
struct Costs {
  std::vector<std::int32_t> exact, approximate, changed, two_columns;
};

Costs compute(Backend& backend, const test::Shape& shape) {
  const Matrix<float> rows = test::normal_matrix(shape.rows, shape.dim, 1);
  const Matrix<float> centroids = test::normal_matrix(shape.sites, shape.dim, 2);
  const Matrix<float> moved = test::normal_matrix(shape.sites, shape.dim, 3);
  const auto all = test::all_columns(shape.sites);
  const auto points = backend.make_points();
  backend.load(*points, rows.view(), true);
  Costs costs;
  const CostView q = backend.cost_buffer(0, shape.rows, shape.sites);
  backend.costs(*points, centroids.view(), kScale, all, q);
  costs.exact = values(backend, q);
  backend.costs(*points, centroids.view(), kScale, std::vector{0, 2}, q);
  costs.two_columns = values(backend, q);
  const CostView base = backend.cost_buffer(1, shape.rows, shape.sites);
  backend.approximate_costs(*points, {}, centroids.view(), kScale, base);
  costs.approximate = values(backend, base);
  const CostView changed = backend.cost_buffer(2, shape.rows, shape.sites);
  backend.changed_costs(*points, centroids.view(), moved.view(), kScale, all, true, base, changed);
  costs.changed = values(backend, changed);
  return costs;
}

std::vector<test::Shape> shapes() {
  std::vector<test::Shape> shapes{{33, 17, 20}, {100, 70, 37}};
#if !SIMT_THREAD_SANITIZER  // a thread for every CUDA thread makes more too slow
  for (std::size_t rows : {1, 31, 32, 257, 1000, 2100}) shapes.push_back({rows, 33, 64});
#endif
  return shapes;
}

TEST_F(CudaBlasTest, gives_the_costs_of_our_own_kernels) {
  for (const test::Shape& shape : shapes()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.sites << " x " << shape.dim);
    const Costs own = compute(*backend_with("off"), shape);

    const Costs found = compute(*backend_with(MOEFY_SIMULATED_CUBLAS), shape);

    EXPECT_EQ(found.approximate, own.approximate);
    EXPECT_EQ(found.changed, own.changed);
    EXPECT_EQ(found.two_columns, found.exact);  // alone or together: the same bits
    EXPECT_EQ(own.two_columns, own.exact);
    for (std::size_t e = 0; e < own.exact.size(); ++e) {
      ASSERT_NEAR(found.exact[e], own.exact[e], 1 << 8) << "cost " << e;  // 2^-10
    }
  }
}

TEST_F(CudaBlasTest, gives_a_row_the_same_costs_in_any_part_of_a_layer) {
  const std::size_t first = 64;
  const Matrix<float> rows = test::normal_matrix(100, 20, 1);
  const Matrix<float> centroids = test::normal_matrix(40, 20, 2);
  const auto backend = backend_with(MOEFY_SIMULATED_CUBLAS);
  const auto costs_of = [&](const MatrixView<const float>& part) {
    const auto points = backend->make_points();
    backend->load(*points, part, false);
    const CostView q = backend->cost_buffer(0, part.rows, 40);
    backend->costs(*points, centroids.view(), kScale, test::all_columns(40), q);
    return values(*backend, q);
  };

  const auto whole = costs_of(rows.view());
  const auto part = costs_of({rows.row(first).data(), 100 - first, 20});

  const std::size_t stride = whole.size() / 100;
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * stride));
}

TEST_F(CudaBlasTest, leaves_int8_products_that_cublas_lacks_to_our_own_kernels) {
  const test::Shape shape{70, 33, 20};
  const Costs own = compute(*backend_with("off"), shape);
  for (const char* const lacking : {"int8 products of cuBLAS", "int8 kernels of cuBLAS"}) {
    SCOPED_TRACE(lacking);
    const auto backend = backend_with(MOEFY_SIMULATED_CUBLAS);
    simt::fail(lacking);

    const Costs found = compute(*backend, shape);

    EXPECT_EQ(found.approximate, own.approximate);
    EXPECT_EQ(found.changed, own.changed);
  }
}

TEST_F(CudaBlasTest, reports_int8_products_at_which_the_device_failed) {
  const auto backend = backend_with(MOEFY_SIMULATED_CUBLAS);
  const Matrix<float> rows = test::normal_matrix(40, 16, 1);
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), true);
  const CostView q = backend->cost_buffer(0, 40, 40);
  simt::fail("cublasGemmEx");

  const std::string message =
      device_error_of([&] { backend->approximate_costs(*points, {}, rows.view(), kScale, q); });

  EXPECT_EQ(message, "device 0, int8 products by cuBLAS: CUBLAS_STATUS_EXECUTION_FAILED");
}

TEST_F(CudaBlasTest, reports_what_cublas_refuses) {
  const auto backend = backend_with(MOEFY_SIMULATED_CUBLAS);
  simt::fail("cublasGemmEx");

  const std::string message = device_error_of([&] { compute(*backend, {40, 40, 16}); });

  EXPECT_EQ(message, "device 0, fp32 products by cuBLAS: CUBLAS_STATUS_EXECUTION_FAILED");
}

TEST_F(CudaBlasTest, reports_a_cublas_that_does_not_start) {
  const auto backend = backend_with(MOEFY_SIMULATED_CUBLAS);
  simt::fail("cublasCreate");

  const std::string message = device_error_of([&] { compute(*backend, {40, 40, 16}); });

  EXPECT_EQ(message, "device 0, starting cuBLAS: CUBLAS_STATUS_EXECUTION_FAILED");
}

TEST_F(CudaBlasTest, names_a_file_that_is_not_there) {
  const auto backend = backend_with("/nowhere/libcublas.so");

  const std::string message = device_error_of([&] { compute(*backend, {40, 40, 16}); });

  EXPECT_EQ(message.rfind("MOEFY_CUBLAS: /nowhere/libcublas.so", 0), 0U) << message;
}

TEST_F(CudaBlasTest, is_not_looked_for_where_our_own_kernels_do) {
  EXPECT_NO_THROW(compute(*backend_with("/nowhere/libcublas.so"), {40, 16, 16}));
}

TEST_F(CudaBlasTest, is_found_in_the_active_python_environment) {
  test::TempDir environment;
  const fs::path folder = environment.path() / "lib/python3.99/site-packages/nvidia/simulated/lib";
  const fs::path file = folder / "libcublas.so.simulated";
  fs::create_directories(folder);
  fs::copy(MOEFY_SIMULATED_CUBLAS, file);
  setenv("VIRTUAL_ENV", environment.path().c_str(), 1);

  const std::string description = describe_cublas();

  unsetenv("VIRTUAL_ENV");
  EXPECT_EQ(description, "cuBLAS 13.0.2: " + file.string());
}

TEST_F(CudaBlasTest, is_described) {
  const auto describe = [](const char* library) {
    setenv("MOEFY_CUBLAS", library, 1);
    return describe_cublas();
  };
  EXPECT_EQ(describe(MOEFY_SIMULATED_CUBLAS), "cuBLAS 13.0.2: " MOEFY_SIMULATED_CUBLAS);
  EXPECT_EQ(describe("off"), "no cuBLAS, products by own kernels");
  EXPECT_EQ(describe("/nowhere/libcublas.so").rfind("MOEFY_CUBLAS: /nowhere", 0), 0U);
}

}  // namespace
}  // namespace moefy
