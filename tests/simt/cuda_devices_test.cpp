// Backends of several devices in one process, which take turns on one thread.
#include <gtest/gtest.h>

#include <algorithm>

#include "cuda/blas.hpp"
#include "device_errors.hpp"
#include "kernels/backends.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"
#include "support/sharded.hpp"

namespace moefy {
namespace {

class CudaDevicesTest : public testing::Test {
 protected:
  void SetUp() override { simt::set_device_count(3); }
  void TearDown() override {
    unsetenv("MOEFY_CUBLAS");
    cudaSetDevice(0);
    simt::set_device_count(1);
  }
};

// A thread for every CUDA thread makes a clustering too slow.
#if !SIMT_THREAD_SANITIZER
TEST_F(CudaDevicesTest, members_on_devices_of_their_own_cluster_as_one_backend_does) {
  const Matrix<float> rows = test::normal_matrix(200, 24, 1);
  const Capacities capacities = Capacities::balanced(200, 5);
  const auto reference = make_cuda_backend(2, 1);
  const auto expected = BalancedKMeans(*reference).run(rows.view(), capacities, {}, 0);
  int device = 0;
  test::Sharded sharded(3, [&] { return make_cuda_backend(device++, 1); });

  const auto found =
      BalancedKMeans(sharded.backend()).run(sharded.put(rows.view()), capacities, {}, 0);

  EXPECT_EQ(found.label, expected.label);
  EXPECT_EQ(found.inertia, expected.inertia);
}
#endif

TEST_F(CudaDevicesTest, take_turns_with_recorded_tokens) {
  constexpr std::size_t kTokens = 20, kNeurons = 33;
  const Matrix<float> values = test::normal_matrix(kTokens, kNeurons, 1);
  struct Device {
    explicit Device(int number) : backend(make_cuda_backend(number, 1)) {}
    std::unique_ptr<Backend> backend;
    LinearAlgebra& algebra = backend->algebra();
    std::unique_ptr<BackendMatrix> rows = algebra.make_matrix(), marks = algebra.make_matrix(),
                                   product = algebra.make_matrix();
    std::unique_ptr<GramSum> gram = algebra.make_gram_sum(kNeurons);
    std::unique_ptr<ProductSum> sum = algebra.make_product_sum(kNeurons, kNeurons);
  };
  setenv("MOEFY_CUBLAS", MOEFY_SIMULATED_CUBLAS, 1);
  Device first(0), second(1);
  Device* const both[] = {&first, &second};
  const auto in_turn = [&](auto step) {
    for (Device* device : both) step(*device);
  };

  in_turn([&](Device& on) { on.rows->assign(values.view()); });
  in_turn([](Device& on) { on.algebra.mark_largest(*on.rows, 3, true, *on.marks); });
  in_turn([](Device& on) { on.algebra.multiply_transposed(*on.marks, *on.rows, *on.product); });
  in_turn([](Device& on) { on.gram->add(*on.rows); });
  in_turn([](Device& on) { on.sum->add(*on.rows, *on.marks); });
  in_turn([](Device& on) { on.gram->factor(10)->solve(*on.sum); });

  EXPECT_TRUE(
      std::ranges::equal(first.product->on_host().values(), second.product->on_host().values()));
  EXPECT_TRUE(std::ranges::equal(first.sum->read().values(), second.sum->read().values()));
}

TEST_F(CudaDevicesTest, cublas_works_for_the_device_that_it_began_on) {
  setenv("MOEFY_CUBLAS", MOEFY_SIMULATED_CUBLAS, 1);
  cuda::Stream stream;
  cuda::Blas blas(stream);
  ASSERT_TRUE(blas.is_there());
  cuda::DeviceBuffer<float> values;
  const std::vector<float> two(1, 2);
  stream.upload(std::span<const float>(two), values.resize(1));
  float* const out = values.data();
  const auto square = [&] { blas.multiply({out, 1}, {out, 1}, 1, 1, 1, out); };
  cudaSetDevice(1);
  EXPECT_EQ(test::device_error_of(square),
            "device 1, fp32 products by cuBLAS: CUBLAS_STATUS_EXECUTION_FAILED");
  cudaSetDevice(0);

  square();

  const auto found = stream.download<float>(out, 1);
  stream.wait();
  EXPECT_EQ(found[0], 4);
}

TEST_F(CudaDevicesTest, cublas_takes_no_stream_of_another_device) {
  setenv("MOEFY_CUBLAS", MOEFY_SIMULATED_CUBLAS, 1);
  cuda::Stream stream;
  cudaSetDevice(1);

  EXPECT_NE(test::device_error_of([&] {
              cuda::Blas(stream).is_there();
            }).find("device 1, giving cuBLAS a stream"),
            std::string::npos);
}

}  // namespace
}  // namespace moefy
