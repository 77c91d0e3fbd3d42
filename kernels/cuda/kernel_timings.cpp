#include "moefy/backend/kernel_timings.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>

#include "cuda/blas.hpp"
#include "cuda/cuda_backend.hpp"
#include "cuda/timing_kernels.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/random.hpp"

namespace moefy {
namespace {

/// Calls of a run: starting one and waiting for the last are not what is timed.
constexpr int kCalls = 10;
constexpr int kScaleLog2 = 10;

class Timer {
 public:
  explicit Timer(int repeats) : repeats_(repeats) {}

  void time(std::string name, std::uint64_t bytes, std::uint64_t operations,
            const std::function<void()>& call) {
    KernelTiming timing{std::move(name), bytes, operations, {}};
    run(1, call);  // memory is there afterwards
    for (int repeat = 0; repeat < repeats_; ++repeat) {
      timing.seconds.push_back(run(kCalls, call) / kCalls);
    }
    timings_.push_back(std::move(timing));
  }
  std::vector<KernelTiming> take() { return std::move(timings_); }

 private:
  static double run(int calls, const std::function<void()>& call) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) call();
    cuda::check(cudaDeviceSynchronize(), "running kernels");
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  int repeats_;
  std::vector<KernelTiming> timings_;
};

void fill_with_normal(std::span<float> values, std::uint64_t seed) {
  RandomStream random(seed, 0, RandomPurpose::bench);
  std::ranges::generate(values, [&] { return random.next_normal(); });
}

void time_blas(Timer& timer, const float* rows, std::size_t num_rows,
               const Matrix<float>& centroids) {
  const std::size_t dim = centroids.cols();
  cuda::Stream stream;
  cuda::Blas blas(stream);
  if (num_rows < cuda::kBlasRows || centroids.rows() < cuda::kBlasColumns || !blas.is_there()) {
    return;
  }
  cuda::DeviceBuffer<float> columns;
  stream.upload(centroids.view().values().first(cuda::kBlasColumns * dim),
                columns.resize(cuda::kBlasColumns * dim));
  const std::size_t blocks = num_rows / cuda::kBlasRows;
  const std::size_t size = blocks * cuda::kBlasRows * dim;
  timer.time("cuBLAS fp32 products", size * sizeof(float), 2 * size * cuda::kBlasColumns, [&] {
    for (std::size_t block = 0; block < blocks; ++block) {
      blas.products(rows + block * cuda::kBlasRows * dim, columns.data(), dim);
    }
  });
}

}  // namespace

std::vector<KernelTiming> time_cuda_kernels(int device, std::size_t num_rows, std::size_t dim,
                                            std::size_t num_sites, int repeats) {
  if (dim % 4 != 0) throw UsageError("bench kernels: columns must be a multiple of 4");
  CudaBackend backend(device, 1);
  cuda::Stream stream;
  const std::size_t size = num_rows * dim;
  const std::uint64_t bytes = size * sizeof(float);
  const std::uint64_t products = 2 * std::uint64_t{size} * num_sites;
  cuda::PinnedBuffer<float> host;
  cuda::DeviceBuffer<float> rows;
  cuda::DeviceBuffer<float> sums;
  host.resize(size);
  rows.resize(size);
  sums.resize(num_rows);
  fill_with_normal(host.span(), 0);
  Matrix<float> centroids(num_sites, dim);
  fill_with_normal(centroids.values(), 1);
  std::vector<std::int32_t> all(num_sites);
  std::iota(all.begin(), all.end(), 0);

  Timer timer(repeats);
  timer.time("copy of the rows to the device", bytes, 0,
             [&] { stream.upload(std::span<const float>(host.span()), rows.data()); });
  timer.time("sum of the rows", bytes, 0,
             [&] { cuda::sum_rows(rows.data(), num_rows, dim, sums.data(), stream.handle()); });
  const auto points = backend.make_points();
  backend.load(*points, {rows.data(), num_rows, dim, MemorySpace::device}, true);
  const CostView q = backend.cost_buffer(0, num_rows, num_sites);
  timer.time("fp32 costs", bytes, products,
             [&] { backend.costs(*points, centroids.view(), kScaleLog2, all, q); });
  timer.time("int8 costs", size, products,
             [&] { backend.approximate_costs(*points, {}, centroids.view(), kScaleLog2, q); });
  time_blas(timer, rows.data(), num_rows, centroids);
  return timer.take();
}

}  // namespace moefy
