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

/// fp32 products of cuBLAS alone. `columns`: centroids [num_sites, dim], zeros up to a multiple of
/// kBlasColumns.
void time_blas(Timer& timer, cuda::Blas& blas, const float* rows, std::size_t num_rows,
               const float* columns, std::size_t num_sites, std::size_t dim) {
  const std::size_t blocks = num_rows / cuda::kBlasRows;
  if (blocks > 0) {
    const std::size_t size = blocks * cuda::kBlasRows * dim;
    timer.time("cuBLAS fp32 products in blocks", size * sizeof(float), 2 * size * num_sites, [&] {
      for (std::size_t block = 0; block < blocks; ++block) {
        for (std::size_t column = 0; column < num_sites; column += cuda::kBlasColumns) {
          blas.products(rows + block * cuda::kBlasRows * dim, columns + column * dim, dim);
        }
      }
    });
  }
  const std::size_t size = num_rows * dim;
  cuda::DeviceBuffer<float> products;
  products.resize(num_rows * num_sites);
  const auto time_at_once = [&](const char* name, cublas::Compute compute) {
    timer.time(name, size * sizeof(float), 2 * size * num_sites, [&] {
      blas.multiply({rows, dim}, {columns, dim}, num_rows, num_sites, dim, products.data(),
                    compute);
    });
  };
  time_at_once(kCublasFp32Products, cublas::fp32_pedantic);
  time_at_once(kCublasFp32Default, cublas::fp32);
}

}  // namespace

KernelTimings time_cuda_kernels(int device, std::size_t num_rows, std::size_t dim,
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

  Timer timer(repeats);
  timer.time(kCopyOfRows, bytes, 0,
             [&] { stream.upload_pinned(std::span<const float>(host.span()), rows.data()); });
  timer.time(kSumOfRows, bytes, 0,
             [&] { cuda::sum_rows(rows.data(), num_rows, dim, sums.data(), stream.handle()); });

  const auto points = backend.make_points();
  backend.load(*points, {rows.data(), num_rows, dim, MemorySpace::device}, true);
  Matrix<float> centroids_on_host(num_sites, dim);
  fill_with_normal(centroids_on_host.values(), 1);
  const auto centroids = backend.make_centroids();
  centroids->resize(num_sites, dim);
  centroids->assign(centroids_on_host.view());
  std::vector<std::int32_t> all(num_sites);
  std::iota(all.begin(), all.end(), 0);
  const CostView q = backend.cost_buffer(0, num_rows, num_sites);
  const auto time_costs = [&](const char* name, Fp32Products by) {
    timer.time(name, bytes, products,
               [&] { backend.costs_by(by, *points, centroids->view(), kScaleLog2, all, q); });
  };
  time_costs(kOwnFp32Costs, Fp32Products::own_kernels);
  cuda::Blas blas(stream);
  if (blas.is_there()) time_costs(kCublasFp32Costs, Fp32Products::cublas);
  timer.time("int8 costs", size, products,
             [&] { backend.approximate_costs(*points, {}, centroids->view(), kScaleLog2, q); });
  if (blas.is_there()) {
    cuda::DeviceBuffer<float> columns;
    columns.resize(cuda::round_up(num_sites, cuda::kBlasColumns) * dim);
    stream.fill(columns.data(), 0, columns.size());
    stream.copy_on_device(centroids->view().data, columns.data(), num_sites * dim);
    time_blas(timer, blas, rows.data(), num_rows, columns.data(), num_sites, dim);
  }
  const bool by_cublas = backend.products_for(num_sites) == Fp32Products::cublas;
  return {timer.take(), by_cublas ? kCublasFp32Costs : kOwnFp32Costs};
}

std::vector<double> time_copy_to_cuda(int device, std::size_t bytes, int repeats) {
  cuda::check(cudaSetDevice(device), "choosing the device");
  cuda::Stream stream;
  cuda::PinnedBuffer<unsigned char> host;
  cuda::DeviceBuffer<unsigned char> on_device;
  host.resize(bytes);
  on_device.resize(bytes);
  std::ranges::fill(host.span(), static_cast<unsigned char>(0));
  Timer timer(repeats);
  timer.time(kCopyOfRows, bytes, 0, [&] {
    stream.upload_pinned(std::span<const unsigned char>(host.span()), on_device.data());
  });
  return timer.take().front().seconds;
}

}  // namespace moefy
