// What the CUDA backend says when the device fails it.
#include <gtest/gtest.h>

#include <string>

#include "device_errors.hpp"
#include "kernels/backends.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"

namespace moefy {
namespace {

using test::device_error_of;

class CudaFaultsTest : public testing::Test {
 protected:
  void SetUp() override { simt::set_device_count(1); }
  void TearDown() override {
    simt::fail("");
    limit_cuda_memory(0);
    simt::set_device_memory(std::size_t{1} << 30);
  }
};

/// One step of everything that a clustering asks of a backend.
void use(Backend& backend) {
  const Matrix<float> rows = test::normal_matrix(100, 20, 1);
  const Matrix<float> centroids = test::normal_matrix(4, 20, 2);
  const auto points = backend.make_points();
  backend.load(*points, rows.view(), true);
  const CostView q = backend.cost_buffer(0, 100, 4);
  backend.costs(*points, centroids.view(), 18, test::all_columns(4), q);
  std::vector<std::int32_t> prices(q.stride, kNoSite);
  std::fill_n(prices.begin(), 4, 0);
  SiteChoice choice;
  backend.best_sites(q, prices, true, choice);
  backend.auction_phase(q, std::vector<std::int64_t>(4, 25), {1 << 20, 0, 2}, prices);
  backend.on_host(q);
}

TEST_F(CudaFaultsTest, says_how_much_memory_is_missing) {
  const auto backend = make_cuda_backend(0, 1);
  simt::set_device_memory(1 << 20);
  const Matrix<float> rows(4096, 1024);
  const auto points = backend->make_points();

  const std::string message = device_error_of([&] { backend->load(*points, rows.view(), false); });

  EXPECT_EQ(message,
            "device 0: 16.0 MiB more are needed, 1.0 of 1.0 MiB are free; use a device with more "
            "memory, or the CPU");
}

TEST_F(CudaFaultsTest, holds_no_more_memory_than_it_may) {
  limit_cuda_memory(std::uint64_t{5} << 20);
  const std::size_t before = simt::device_memory_in_use();
  const Matrix<float> rows = test::normal_matrix(1024, 1024, 0);
  {
    const auto backend = make_cuda_backend(0, 1);
    const auto points = backend->make_points();
    backend->load(*points, rows.view(), false);
    EXPECT_LE(simt::device_memory_in_use() - before, std::size_t{5} << 20);
    const auto more = backend->make_points();

    const std::string message = device_error_of([&] { backend->load(*more, rows.view(), false); });

    EXPECT_NE(message.find("device 0: 4.0 MiB more are needed, 4."), std::string::npos) << message;
    EXPECT_NE(message.find("of 5.0 MiB are in use (--device-memory)"), std::string::npos);
  }
  // What was given back counts no more.
  const auto backend = make_cuda_backend(0, 1);
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
}

TEST_F(CudaFaultsTest, gives_its_memory_back) {
  const std::size_t before = simt::device_memory_in_use();
  {
    const auto backend = make_cuda_backend(0, 1);
    use(*backend);
    EXPECT_GT(simt::device_memory_in_use(), before);
  }
  EXPECT_EQ(simt::device_memory_in_use(), before);
}

// A thread for every CUDA thread makes so many runs too slow.
#if !SIMT_THREAD_SANITIZER
TEST_F(CudaFaultsTest, reports_every_failing_call_wherever_it_happens) {
  for (const char* call : {"cudaMalloc", "cudaMallocHost", "launch", "cudaStreamSynchronize",
                           "cudaMemcpyAsync", "cudaMemsetAsync"}) {
    EXPECT_GE(test::reported_failures(call, use), 1) << call;
  }
}
#endif

TEST_F(CudaFaultsTest, refuses_a_device_that_is_not_there) {
  EXPECT_EQ(device_error_of([] { make_cuda_backend(1, 1); }),
            "device 1 is not there: this process sees 1");
  simt::set_device_count(0);
  EXPECT_NE(device_error_of([] { make_cuda_backend(0, 1); }).find("no NVIDIA GPU"),
            std::string::npos);
}

TEST_F(CudaFaultsTest, tells_a_driver_that_is_too_old_from_a_device_that_is_not_there) {
  simt::set_device_count(0);
  EXPECT_EQ(cuda_obstacle(), "no device, or CUDA_VISIBLE_DEVICES hides it");
  simt::set_device_count(1);
  EXPECT_EQ(cuda_obstacle(), "");
  simt::fail("cudaGetDeviceCount", 1);
  EXPECT_EQ(cuda_device_count(), 0);
  EXPECT_EQ(device_error_of([] { make_cuda_backend(0, 1); }),
            "--backend cuda: no NVIDIA GPU can be used here (the driver supports CUDA 12.4, moefy "
            "was built with 12.8); use --backend cpu");
}

}  // namespace
}  // namespace moefy
