#pragma once

#include <array>
#include <optional>
#include <vector>

#include "cuda/runtime.hpp"
#include "moefy/backend/rows.hpp"

namespace moefy::cuda {

/// fp32 rows in device memory. Works on the stream of a backend, which must outlive it.
class CudaRows final : public RowMatrix {
 public:
  CudaRows(int device, Stream& stream) : device_(device), stream_(stream) {}

  void resize(std::size_t num_rows, std::size_t dim,
              std::span<const std::int32_t> to_keep) override;
  RowsView view() const override { return {x_.data(), num_rows_, dim_, MemorySpace::device}; }
  void fill_columns(std::size_t first, std::size_t width,
                    const std::function<void(RowsTarget)>& fill) override;
  std::vector<double> squared_norms() override;
  void keep(std::span<const std::int32_t> rows, bool unit) override;
  void add_unit_rows(std::span<const std::int32_t> label, Matrix<double>& sum) override;

 private:
  void enter() const;

  int device_;
  Stream& stream_;
  std::size_t num_rows_ = 0;
  std::size_t dim_ = 0;
  std::optional<std::vector<double>> squared_norms_;  ///< of the rows as they are
  DeviceBuffer<float> x_;
  DeviceBuffer<float> kept_;  ///< the rows that stay, while they are gathered
  DeviceBuffer<double> norm_;
  DeviceBuffer<std::int32_t> which_;
  DeviceBuffer<std::int64_t> offset_;
  DeviceBuffer<float> factor_;
  DeviceBuffer<double> weight_;
  DeviceBuffer<double> sum_;
};

/// Bytes of a layer in device memory. They arrive on streams of their own, through pinned blocks.
class CudaRawBytes final : public RawBytes {
 public:
  /// `compute`: the stream of the backend that widens them; must outlive this.
  CudaRawBytes(int device, Stream& compute);

  void resize(std::size_t bytes) override;
  void receive(std::size_t offset, std::size_t bytes, const Source& next) override;
  std::span<std::byte> device_bytes() override { return bytes_.span(); }
  void finish() override;
  std::optional<BadElement> widen(std::size_t offset, const RawShape& shape,
                                  const RowsTarget& out) override;

 private:
  /// A block that is filled by the host, and the copy of it that may still be under way.
  struct Block {
    PinnedBuffer<std::byte> memory;
    Stream copies;
  };

  int device_;
  Stream& compute_;
  DeviceBuffer<std::byte> bytes_;
  std::array<Block, 2> blocks_;
  std::size_t next_block_ = 0;
  DeviceBuffer<unsigned long long> first_bad_;
};

}  // namespace moefy::cuda
