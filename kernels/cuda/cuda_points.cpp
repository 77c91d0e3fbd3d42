#include "cuda/cuda_backend.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "cuda/cuda_centroids.hpp"
#include "cuda/cuda_points.hpp"
#include "cuda/cuda_rows.hpp"
#include "cuda/cuda_transfers.hpp"
#include "cuda/intake_kernels.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

std::unique_ptr<RowMatrix> CudaBackend::make_rows() {
  enter();
  return std::make_unique<cuda::CudaRows>(device_, stream_);
}

std::unique_ptr<RawBytes> CudaBackend::make_raw_bytes() {
  enter();
  return std::make_unique<cuda::CudaRawBytes>(device_, stream_);
}

std::unique_ptr<DeviceTransfers> CudaBackend::make_transfers() {
  enter();
  return std::make_unique<cuda::CudaTransfers>(device_);
}

std::unique_ptr<Points> CudaBackend::make_points() { return std::make_unique<cuda::CudaPoints>(); }

std::unique_ptr<Centroids> CudaBackend::make_centroids() {
  return std::make_unique<cuda::CudaCentroids>(device_, stream_);
}

std::unique_ptr<SiteSums> CudaBackend::make_site_sums() {
  return std::make_unique<cuda::CudaSums>(device_, stream_);
}

void CudaBackend::load(Points& points, const RowsView& rows, bool quantize) {
  enter();
  auto& target = static_cast<cuda::CudaPoints&>(points);
  const std::size_t n = rows.rows;
  target.rows = rows;
  if (rows.space == MemorySpace::device) {
    target.x = rows.data;
  } else {
    target.x = target.copies.resize(rows.size());
    stream_.upload(rows.on_host().values(), target.copies.data());
  }

  cuda::RowFigures figures;
  figures.squared_norm = row_norm_.resize(n);
  figures.max_abs = row_max_.resize(n);
  figures.first_bad = first_bad_.resize(1);
  figures.norm = target.squared_norm.resize(n);
  if (quantize) {
    figures.step = target.step.resize(n);
    figures.quantized = target.quantized.resize(n * cuda::padded_dim(rows.cols));
  }
  stream_.fill(first_bad_.data(), 0xff, 1);
  cuda::measure_rows(target.x, n, rows.cols, figures, stream_.handle());
  const auto norm = stream_.download(row_norm_.data(), n);
  const auto max_abs = stream_.download(row_max_.data(), n);
  const auto bad = stream_.download(first_bad_.data(), 1);
  stream_.wait();

  if (bad[0] != ~std::uint64_t{0}) {
    const std::size_t row = bad[0] >> 32;
    const std::size_t column = bad[0] & 0xffffffffU;
    const auto value = stream_.download(target.x + row * rows.cols + column, 1);
    stream_.wait();
    throw InputError(fmt::format("row {}, column {} is {}", row, column, value[0]));
  }
  target.max_squared_norm = n == 0 ? 0 : *std::ranges::max_element(norm);
  target.block_squared_norm = cuda::block_sums(norm);
  target.sum_squared_norm =
      std::accumulate(target.block_squared_norm.begin(), target.block_squared_norm.end(), 0.0);
  target.max_abs = n == 0 ? 0 : *std::ranges::max_element(max_abs);
  target.zero_rows = std::ranges::count(norm, 0.0);
}

void CudaBackend::load_shifted(Points& points, const RowsView& rows, std::span<const float> shift,
                               bool quantize) {
  if (rows.space == MemorySpace::host) return Backend::load_shifted(points, rows, shift, quantize);
  enter();
  float* const shifted = static_cast<cuda::CudaPoints&>(points).copies.resize(rows.size());
  stream_.upload(shift, shift_.resize(shift.size()));
  cuda::subtract_vector(rows.data, shift_.data(), rows.rows, rows.cols, shifted, stream_.handle());
  load(points, {shifted, rows.rows, rows.cols, MemorySpace::device}, quantize);
}

void CudaBackend::read_rows(const Points& points, std::span<const std::int32_t> rows,
                            MatrixView<float> out) {
  enter();
  constexpr std::size_t kRowsAtOnce = 1024;
  const std::size_t dim = points.rows.cols;
  require(out.rows == rows.size() && out.cols == dim, "a row of memory for each");
  for (std::size_t first = 0; first < rows.size(); first += kRowsAtOnce) {
    const auto block = rows.subspan(first, std::min(kRowsAtOnce, rows.size() - first));
    stream_.upload(block, rows_.resize(block.size()));
    float* const gathered = factor_.resize(block.size() * dim);
    cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(cuda::own(points).x), rows_.data(),
                      block.size(), dim, reinterpret_cast<std::uint32_t*>(gathered),
                      stream_.handle());
    const auto found = stream_.download<float>(gathered, block.size() * dim);
    stream_.wait();
    std::ranges::copy(found, out.data + first * dim);
  }
}

void CudaBackend::copy_quantized(const Points& from, std::span<const std::int32_t> rows,
                                 Points& to) {
  enter();
  const cuda::CudaPoints& source = cuda::own(from);
  auto& target = static_cast<cuda::CudaPoints&>(to);
  const std::size_t n = rows.size();
  const std::size_t padded = cuda::padded_dim(from.rows.cols);
  target.rows = {nullptr, n, from.rows.cols};
  stream_.upload(rows, rows_.resize(n));
  const auto gather = [&](const auto* values, std::size_t bytes_a_row, auto* out) {
    cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(values), rows_.data(), n,
                      bytes_a_row / sizeof(std::uint32_t), reinterpret_cast<std::uint32_t*>(out),
                      stream_.handle());
  };
  gather(source.squared_norm.data(), sizeof(float), target.squared_norm.resize(n));
  gather(source.step.data(), sizeof(float), target.step.resize(n));
  gather(source.quantized.data(), padded, target.quantized.resize(n * padded));
}

}  // namespace moefy
