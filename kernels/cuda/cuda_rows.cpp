#include "cuda/cuda_rows.hpp"

#include <algorithm>
#include <utility>

#include "cuda/intake_kernels.hpp"
#include "cuda/row_kernels.hpp"
#include "cuda/rows_by_label.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cuda {

void CudaRows::enter() const { check(cudaSetDevice(device_), "choosing the device"); }

void CudaRows::resize(std::size_t num_rows, std::size_t dim,
                      std::span<const std::int32_t> /*to_keep*/) {
  enter();
  x_.resize(num_rows * dim);
  squared_norms_.reset();
  num_rows_ = num_rows;
  dim_ = dim;
}

void CudaRows::fill_columns(std::size_t first, std::size_t width,
                            const std::function<void(RowsTarget)>& fill) {
  enter();
  squared_norms_.reset();
  fill(RowsTarget(x_.data() + first, num_rows_, width, dim_, MemorySpace::device));
}

std::vector<double> CudaRows::squared_norms() {
  if (squared_norms_) return *squared_norms_;
  enter();
  RowFigures figures;
  figures.squared_norm = norm_.resize(num_rows_);
  measure_rows(x_.data(), num_rows_, dim_, figures, stream_.handle());
  const auto norm = stream_.download<double>(norm_.data(), num_rows_);
  stream_.wait();
  return squared_norms_.emplace(norm.begin(), norm.end());
}

void CudaRows::keep(std::span<const std::int32_t> rows, bool unit) {
  const bool all = rows.size() == num_rows_;
  if (all && !unit) return;
  std::vector<float> factor(rows.size(), 1.0F);
  if (unit) {
    const std::vector<double> norm = squared_norms();
    for (std::size_t a = 0; a < factor.size(); ++a)
      factor[a] = static_cast<float>(unit_factor(norm[static_cast<std::size_t>(rows[a])]));
  }
  enter();
  squared_norms_.reset();
  stream_.upload(std::span<const float>(factor), factor_.resize(factor.size()));
  if (all) return scale_rows(x_.data(), num_rows_, dim_, factor_.data(), stream_.handle());
  stream_.upload(rows, which_.resize(rows.size()));
  gather_scaled_rows(x_.data(), which_.data(), factor_.data(), rows.size(), dim_,
                     kept_.resize(rows.size() * dim_), stream_.handle());
  x_.swap(kept_);
  num_rows_ = rows.size();
}

void CudaRows::add_unit_rows(std::span<const std::int32_t> label, Matrix<double>& sum) {
  std::vector<double> factor = squared_norms();
  for (double& value : factor) value = unit_factor(value);
  enter();
  const std::size_t num_labels = sum.rows();
  const RowsByLabel lists = rows_by_label(label, num_labels);
  stream_.upload(std::span(lists.begin), offset_.resize(lists.begin.size()));
  stream_.upload(std::span(lists.rows), which_.resize(lists.rows.size()));
  stream_.upload(std::span<const double>(factor), weight_.resize(factor.size()));
  stream_.upload(std::span<const double>(sum.values()), sum_.resize(num_labels * dim_));
  add_rows_by_label(x_.data(), dim_, which_.data(), offset_.data(), weight_.data(), num_labels,
                    sum_.data(), stream_.handle());
  const auto found = stream_.download<double>(sum_.data(), num_labels * dim_);
  stream_.wait();
  std::ranges::copy(found, sum.values().begin());
}

namespace {

/// Long enough for the bus, short beside a layer.
constexpr std::size_t kBlockBytes = std::size_t{8} << 20;
/// Elements of every type are read from here on.
constexpr std::size_t kAlignment = 16;

}  // namespace

CudaRawBytes::CudaRawBytes(int device, Stream& compute) : device_(device), compute_(compute) {}

void CudaRawBytes::resize(std::size_t bytes) {
  check(cudaSetDevice(device_), "choosing the device");
  bytes_.resize(bytes);
}

void CudaRawBytes::receive(std::size_t offset, std::size_t bytes, const Source& next) {
  check(cudaSetDevice(device_), "choosing the device");
  require(offset + bytes <= bytes_.size(), "bytes are received where there is room for them");
  while (bytes > 0) {
    Block& block = blocks_[next_block_];
    next_block_ = (next_block_ + 1) % blocks_.size();
    block.copies.wait();
    const std::size_t size = std::min(bytes, kBlockBytes);
    block.memory.resize(size);
    next(block.memory.span());
    block.copies.upload_pinned(std::span<const std::byte>(block.memory.span()),
                               bytes_.data() + offset);
    offset += size;
    bytes -= size;
  }
}

void CudaRawBytes::finish() {
  for (Block& block : blocks_) block.copies.wait();
}

std::optional<BadElement> CudaRawBytes::widen(std::size_t offset, const RawShape& shape,
                                              const RowsTarget& out) {
  check(cudaSetDevice(device_), "choosing the device");
  const std::size_t size = size_of(shape.dtype);
  require(offset % kAlignment == 0 && offset + shape.num_rows * shape.dim * size <= bytes_.size() &&
              out.space == MemorySpace::device && out.rows == shape.num_rows &&
              out.cols == shape.dim,
          "the matrix lies within the bytes, and goes to rows of the device");
  const std::byte* const raw = bytes_.data() + offset;
  compute_.fill(first_bad_.resize(1), 0xff, 1);
  widen_rows(raw, shape, out, first_bad_.data(), compute_.handle());
  const auto bad = compute_.download<unsigned long long>(first_bad_.data(), 1);
  compute_.wait();
  if (bad[0] == ~0ULL) return std::nullopt;
  BadElement found;
  found.index = bad[0];
  const auto element = compute_.download<std::byte>(raw + found.index * size, size);
  compute_.wait();
  moefy::widen(shape.dtype, element, {&found.value, 1});
  return found;
}

}  // namespace moefy::cuda
