#include "cuda/cuda_backend.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "cuda/cuda_points.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

std::unique_ptr<Points> CudaBackend::make_points() { return std::make_unique<cuda::CudaPoints>(); }

void CudaBackend::load(Points& points, MatrixView<const float> rows, bool quantize) {
  enter();
  auto& target = static_cast<cuda::CudaPoints&>(points);
  const std::size_t n = rows.rows;
  target.rows = rows;
  stream_.upload(std::span<const float>(rows.values()), target.x.resize(rows.size()));

  cuda::RowFigures figures;
  figures.squared_norm = row_norm_.resize(n);
  figures.max_abs = row_max_.resize(n);
  figures.first_bad = first_bad_.resize(1);
  target.squared_norm.resize(n);
  if (quantize) {
    figures.step = target.step.resize(n);
    figures.quantized = target.quantized.resize(n * cuda::padded_dim(rows.cols));
  }
  stream_.fill(first_bad_.data(), 0xff, 1);
  cuda::measure_rows(target.x.data(), n, rows.cols, cuda::kLargestRowUnit, figures,
                     stream_.handle());
  cuda::narrow(row_norm_.data(), nullptr, n, target.squared_norm.data(), stream_.handle());
  const auto norm = stream_.download(row_norm_.data(), n);
  const auto max_abs = stream_.download(row_max_.data(), n);
  const auto bad = stream_.download(first_bad_.data(), 1);
  stream_.wait();

  if (bad[0] != ~std::uint64_t{0}) {
    const std::size_t row = bad[0] >> 32;
    const std::size_t column = bad[0] & 0xffffffffU;
    throw InputError(fmt::format("row {}, column {} is {}", row, column, rows.row(row)[column]));
  }
  target.max_squared_norm = n == 0 ? 0 : *std::ranges::max_element(norm);
  target.block_squared_norm = cuda::block_sums(norm);
  target.sum_squared_norm =
      std::accumulate(target.block_squared_norm.begin(), target.block_squared_norm.end(), 0.0);
  target.max_abs = n == 0 ? 0 : *std::ranges::max_element(max_abs);
  target.zero_rows = std::ranges::count(norm, 0.0);
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
