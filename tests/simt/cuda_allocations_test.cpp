// What clustering takes of a device's memory, layer after layer.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "kernels/backends.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"

namespace moefy {
namespace {

// Under ThreadSanitizer every CUDA thread is a thread, of which this starts very many.
constexpr std::size_t kRows = SIMT_THREAD_SANITIZER ? 160 : 640;
constexpr std::uint64_t kLayers = SIMT_THREAD_SANITIZER ? 3 : 6;
constexpr std::size_t kDim = 24;

/// Brings the rows of a layer in as they lie in a file, and clusters them.
BalancedKMeansResult cluster(RawBytes& bytes, RowMatrix& rows, BalancedKMeans& kmeans,
                             std::uint64_t layer) {
  const Matrix<float> values = test::normal_matrix(kRows, kDim, layer);
  std::size_t taken = 0;
  bytes.resize(values.values().size_bytes());
  bytes.receive(0, values.values().size_bytes(), [&](std::span<std::byte> block) {
    std::memcpy(block.data(), std::as_bytes(values.values()).data() + taken, block.size());
    taken += block.size();
  });
  bytes.finish();
  rows.resize(kRows, kDim);
  rows.fill_columns(0, kDim, [&](const RowsTarget& out) {
    EXPECT_FALSE(bytes.widen(0, {DType::f32, kRows, kDim, false}, out).has_value());
  });
  return kmeans.run(rows.view(), Capacities::balanced(kRows, 10), {}, layer);
}

TEST(CudaAllocationsTest, layers_of_one_size_take_no_more_memory) {
  simt::set_device_count(1);
  const std::unique_ptr<Backend> backend = make_cuda_backend(0, 1);
  const std::unique_ptr<RawBytes> bytes = backend->make_raw_bytes();
  const std::unique_ptr<RowMatrix> rows = backend->make_rows();
  BalancedKMeans kmeans(*backend);
  // Two, because blocks of pinned memory are filled in turn.
  for (const std::uint64_t layer : {0, 1}) cluster(*bytes, *rows, kmeans, layer);
  const std::size_t allocations = simt::num_allocations();
  const std::size_t in_use = simt::device_memory_in_use();

  for (std::uint64_t layer = 2; layer < kLayers; ++layer) {
    EXPECT_EQ(cluster(*bytes, *rows, kmeans, layer).duality_gap, 0);
  }

  EXPECT_EQ(simt::num_allocations(), allocations);
  EXPECT_EQ(simt::device_memory_in_use(), in_use);
}

}  // namespace
}  // namespace moefy
