// The simulation itself: what a kernel or a stream does wrong must not pass unseen.
#include <cooperative_groups.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "cuda/runtime.hpp"
#include "moefy/core/error.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"

#if SIMT_THREAD_SANITIZER
// A race ends the process, so that a test can expect it.
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }
#endif

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 64;

/// Sums of blocks of 64 integers; `barriers`: whether threads wait before they read what others
/// wrote; `beyond`: elements read past the end.
__global__ void block_sum_kernel(const std::uint32_t* values, std::uint32_t* sums, bool barriers,
                                 unsigned beyond) {
  auto* const shared = block_memory<std::uint32_t>();
  const unsigned t = threadIdx.x;
  shared[t] = values[blockIdx.x * blockDim.x + t + beyond];
  for (unsigned half = kBlock / 2; half > 0; half /= 2) {
    if (barriers) __syncthreads();
    if (t < half) shared[t] += shared[t + half];
  }
  if (t == 0) sums[blockIdx.x] = shared[0];
}

#if SIMT_ADDRESS_SANITIZER
__global__ void past_shared_memory_kernel(std::int32_t* out) {
  auto* const shared = block_memory<std::int32_t>();
  shared[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}
#endif

__global__ void double_kernel(std::int32_t* value) {
  if (threadIdx.x == 0) *value *= 2;
}

#if SIMT_THREAD_SANITIZER
__global__ void same_element_kernel(std::int32_t* out) {
  if (threadIdx.x == 0) *out = static_cast<std::int32_t>(blockIdx.x);
}
#else
__global__ void barrier_for_some_kernel() {
  if (threadIdx.x < 40) __syncthreads();
  warp_sum(1);
}
#endif

/// Every block hands its number to the next one; `waits`: after all have put theirs down.
__global__ void pass_on_kernel(std::uint32_t* from, std::uint32_t* to, bool waits) {
  if (threadIdx.x == 0) from[blockIdx.x] = 10 + blockIdx.x;
  if (waits) cooperative_groups::this_grid().sync();
  if (threadIdx.x == 0) to[blockIdx.x] = from[(blockIdx.x + 1) % gridDim.x];
}

std::vector<std::uint32_t> pass_on(bool waits) {
  Stream stream;
  DeviceBuffer<std::uint32_t> from;
  DeviceBuffer<std::uint32_t> to;
  launch_resident(pass_on_kernel, 2, kBlock, 0, stream.handle(), from.resize(2), to.resize(2),
                  waits);
  const auto got = stream.download<std::uint32_t>(to.data(), 2);
  stream.wait();
  return {got.begin(), got.end()};
}

std::vector<std::uint32_t> block_sums(unsigned num_blocks, bool barriers, unsigned beyond) {
  std::vector<std::uint32_t> values(num_blocks * kBlock);
  std::iota(values.begin(), values.end(), 0);
  Stream stream;
  DeviceBuffer<std::uint32_t> device_values;
  DeviceBuffer<std::uint32_t> device_sums;
  stream.upload(std::span<const std::uint32_t>(values), device_values.resize(values.size()));
  launch(block_sum_kernel, dim3(num_blocks), kBlock, kBlock * sizeof(std::uint32_t),
         stream.handle(), device_values.data(), device_sums.resize(num_blocks), barriers, beyond);
  const auto sums = stream.download<std::uint32_t>(device_sums.data(), num_blocks);
  stream.wait();
  return {sums.begin(), sums.end()};
}

template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), unsigned num_blocks, std::size_t shared_bytes,
         Arguments... arguments) {
  Stream stream;
  launch(kernel, dim3(num_blocks), kBlock, shared_bytes, stream.handle(), arguments...);
  stream.wait();
}

class SimtTest : public testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    simt::set_device_count(1);
  }
  void TearDown() override {
    simt::fail("");
    simt::set_device_count(1);
    cudaSetDevice(0);
    simt::set_device_memory(std::size_t{1} << 30);
  }
};
using SimtDeathTest = SimtTest;

TEST_F(SimtTest, runs_blocks_with_barriers) {
  EXPECT_EQ(block_sums(3, true, 0), (std::vector{2016U, 6112U, 10208U}));
}

TEST_F(SimtTest, lets_blocks_wait_for_each_other) {
  EXPECT_EQ(pass_on(true), (std::vector{11U, 10U}));
}

TEST_F(SimtDeathTest, shows_a_wait_for_blocks_that_need_not_run) {
  EXPECT_DEATH(
      {
        DeviceBuffer<std::uint32_t> memory;
        run(pass_on_kernel, 1, 0, memory.resize(1), memory.resize(1), true);
      },
      "not launched together");
}

TEST_F(SimtTest, gives_kernels_memory_that_is_not_zero) {
  DeviceBuffer<std::int32_t> fresh;
  Stream stream;
  const auto values = stream.download<std::int32_t>(fresh.resize(1), 1);
  stream.wait();

  EXPECT_EQ(values[0], static_cast<std::int32_t>(0xcdcdcdcd));
}

#if SIMT_THREAD_SANITIZER
TEST_F(SimtDeathTest, shows_a_missing_barrier) {
  EXPECT_DEATH(block_sums(1, false, 0), "data race");
}

TEST_F(SimtDeathTest, shows_blocks_that_do_not_wait_for_each_other) {
  EXPECT_DEATH(pass_on(false), "data race");
}

TEST_F(SimtDeathTest, shows_blocks_that_write_the_same_element) {
  EXPECT_DEATH(
      {
        DeviceBuffer<std::int32_t> out;
        run(same_element_kernel, 2, 0, out.resize(1));
      },
      "data race");
}
#else
TEST_F(SimtTest, shows_blocks_that_do_not_wait_for_each_other) {
  EXPECT_NE(pass_on(false), pass_on(true));
}

TEST_F(SimtTest, shows_a_missing_barrier) {
  EXPECT_NE(block_sums(1, false, 0), block_sums(1, true, 0));
}

TEST_F(SimtDeathTest, shows_a_barrier_that_some_threads_never_reach) {
  EXPECT_DEATH(run(barrier_for_some_kernel, 1, 0), "deadlock");
}
#endif

#if SIMT_ADDRESS_SANITIZER
TEST_F(SimtDeathTest, shows_a_read_past_device_memory) {
  EXPECT_DEATH(block_sums(2, true, 1), "heap-buffer-overflow");
}

TEST_F(SimtDeathTest, shows_a_host_that_reads_device_memory) {
  DeviceBuffer<std::int32_t> device;
  device.resize(4);
  const auto read = [&] { std::printf("%d", device.data()[3]); };
  EXPECT_DEATH(read(), "use-after-poison");
}

TEST_F(SimtDeathTest, shows_a_host_that_writes_device_memory_after_a_kernel) {
  DeviceBuffer<std::int32_t> device;
  run(double_kernel, 1, 0, device.resize(1));
  EXPECT_DEATH(device.data()[0] = 1, "use-after-poison");
}

TEST_F(SimtDeathTest, shows_a_copy_to_the_host_that_takes_the_host_for_the_device) {
  DeviceBuffer<std::int32_t> device;
  std::int32_t host = 0;
  device.resize(1);
  EXPECT_DEATH(
      {
        std::memcpy(&host, device.data(), sizeof host);
        ADD_FAILURE() << host;
      },
      "use-after-poison");
}

TEST_F(SimtDeathTest, shows_a_kernel_that_writes_memory_of_another_device) {
  simt::set_device_count(2);
  DeviceBuffer<std::int32_t> far;
  cudaSetDevice(1);
  far.resize(1);
  cudaSetDevice(0);
  EXPECT_DEATH(run(double_kernel, 1, 0, far.data()), "use-after-poison");
}

TEST_F(SimtDeathTest, shows_a_write_past_shared_memory) {
  EXPECT_DEATH(
      {
        DeviceBuffer<std::int32_t> out;
        run(past_shared_memory_kernel, 1, kBlock * sizeof(std::int32_t), out.resize(kBlock));
      },
      "heap-buffer-overflow");
}
#endif

TEST_F(SimtTest, shows_results_only_after_the_wait) {
  DeviceBuffer<std::int32_t> device;
  PinnedBuffer<std::int32_t> out;
  out.resize(1)[0] = 5;
  const std::vector<std::int32_t> in(1, 7);
  Stream stream;
  stream.upload(std::span<const std::int32_t>(in), device.resize(1));
  stream.download(device.data(), out);
  const auto out_of_the_stream = stream.download<std::int32_t>(device.data(), 1);

  EXPECT_EQ(out.data()[0], 5);
  stream.wait();
  EXPECT_EQ(out_of_the_stream[0], 7);
  EXPECT_EQ(out.data()[0], 7);
}

TEST_F(SimtTest, uploads_of_any_size_are_what_they_were_when_they_were_asked_for) {
  DeviceBuffer<std::int32_t> device;
  Stream stream;
  for (const std::size_t size : {1, 1000, 300'000, 3'000'000}) {  // the stream's own memory: 4 MiB
    std::vector<std::int32_t> in(size);
    std::iota(in.begin(), in.end(), 0);
    const std::vector<std::int32_t> expected = in;
    stream.upload(std::span<const std::int32_t>(in), device.resize(size));
    std::ranges::fill(in, -1);
    const auto out = stream.download<std::int32_t>(device.data(), size);
    stream.wait();
    EXPECT_TRUE(std::ranges::equal(out, expected)) << size;
  }
}

TEST_F(SimtTest, reads_pinned_memory_only_when_the_copy_runs) {
  DeviceBuffer<std::int32_t> device;
  PinnedBuffer<std::int32_t> in;
  Stream stream;
  in.resize(1)[0] = 7;
  stream.upload_pinned(std::span<const std::int32_t>(in.span()), device.resize(1));
  in.data()[0] = 8;  // too early
  const auto out = stream.download<std::int32_t>(device.data(), 1);
  stream.wait();

  EXPECT_EQ(out[0], 8);
}

/// Two devices, the first of them chosen.
class SimtDevicesTest : public SimtTest {
 protected:
  void SetUp() override {
    SimtTest::SetUp();
    simt::set_device_count(2);
    choose(0);
  }
  static void choose(int device) { ASSERT_EQ(cudaSetDevice(device), cudaSuccess); }
  static std::string message_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const DeviceError& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(SimtDevicesTest, each_run_kernels_on_streams_and_memory_of_their_own) {
  const std::vector<std::int32_t> seven(1, 7);
  for (const int device : {0, 1}) {
    choose(device);
    Stream stream;
    DeviceBuffer<std::int32_t> value;
    stream.upload(std::span<const std::int32_t>(seven), value.resize(1));
    launch(double_kernel, dim3(1), kBlock, 0, stream.handle(), value.data());
    const auto out = stream.download<std::int32_t>(value.data(), 1);
    stream.wait();
    EXPECT_EQ(out[0], 14) << device;
  }
}

TEST_F(SimtDevicesTest, start_no_kernel_on_a_stream_of_another) {
  Stream stream;
  DeviceBuffer<std::int32_t> value;
  value.resize(1);
  choose(1);

  EXPECT_EQ(
      message_of([&] { launch(double_kernel, dim3(1), kBlock, 0, stream.handle(), value.data()); }),
      "device 1, starting a kernel: invalid resource handle");
  EXPECT_EQ(message_of([&] { stream.fill(value.data(), 0, 1); }),
            "device 1, filling memory: invalid resource handle");
}

TEST_F(SimtDevicesTest, copy_for_a_stream_though_another_is_chosen) {
  Stream stream;
  DeviceBuffer<std::int32_t> value;
  const std::vector<std::int32_t> seven(1, 7);
  value.resize(1);
  choose(1);

  stream.upload(std::span<const std::int32_t>(seven), value.data());
  const auto out = stream.download<std::int32_t>(value.data(), 1);
  stream.wait();

  EXPECT_EQ(out[0], 7);
}

TEST_F(SimtDevicesTest, copy_no_memory_of_another) {
  Stream stream;
  DeviceBuffer<std::int32_t> far;
  choose(1);
  far.resize(1);
  choose(0);

  EXPECT_THROW(stream.fill(far.data(), 0, 1), DeviceError);
  EXPECT_THROW(stream.download<std::int32_t>(far.data(), 1), DeviceError);
}

TEST_F(SimtDevicesTest, record_no_event_of_another) {
  Stream stream;
  choose(1);
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);

  EXPECT_EQ(cudaEventRecord(event, stream.handle()), cudaErrorInvalidResourceHandle);

  cudaEventDestroy(event);
  cudaGetLastError();
}

TEST_F(SimtDevicesTest, wait_for_their_own_streams_only) {
  const std::vector<std::int32_t> seven(1, 7);
  Stream stream;
  DeviceBuffer<std::int32_t> value;
  stream.upload(std::span<const std::int32_t>(seven), value.resize(1));
  PinnedBuffer<std::int32_t> out;
  out.resize(1)[0] = 5;
  stream.download(value.data(), out);

  choose(1);
  cudaDeviceSynchronize();
  EXPECT_EQ(out.data()[0], 5);
  choose(0);
  cudaDeviceSynchronize();
  EXPECT_EQ(out.data()[0], 7);
}

TEST_F(SimtTest, refuses_host_memory_where_device_memory_belongs) {
  const std::vector<std::int32_t> in(4);
  std::vector<std::int32_t> out(4);
  Stream stream;

  EXPECT_THROW(stream.upload(std::span<const std::int32_t>(in), out.data()), DeviceError);
}

}  // namespace
}  // namespace moefy::cuda
