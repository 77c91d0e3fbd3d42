#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "moefy/core/dtype.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// Where a view points to. CPU backends use host memory only; `group`: nowhere, because what it is
/// a view of lies with several ranks (see ShardedBackend).
enum class MemorySpace { host, device, group };

/// fp32 rows [rows, cols] that somebody else owns, one after another, in host memory or in a
/// backend's.
struct RowsView {
  const float* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  MemorySpace space = MemorySpace::host;

  RowsView() = default;
  RowsView(const float* data_in, std::size_t rows_in, std::size_t cols_in,
           MemorySpace space_in = MemorySpace::host)
      : data(data_in), rows(rows_in), cols(cols_in), space(space_in) {}
  /// Host memory, as most callers have it.
  RowsView(MatrixView<const float> view)
      : data(view.data), rows(view.rows), cols(view.cols), space(MemorySpace::host) {}
  RowsView(MatrixView<float> view) : RowsView(MatrixView<const float>(view)) {}

  std::size_t size() const { return rows * cols; }
  /// For those who can read the memory.
  std::span<const float> row(std::size_t i) const { return {data + i * cols, cols}; }
  /// The same for the host to read. InternalError if they are not in host memory.
  MatrixView<const float> on_host() const;
};

/// Where fp32 rows are to be put: `rows` rows of `cols` values, `stride` values apart.
struct RowsTarget {
  float* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;
  MemorySpace space = MemorySpace::host;

  RowsTarget(float* data_in, std::size_t rows_in, std::size_t cols_in, std::size_t stride_in,
             MemorySpace space_in)
      : data(data_in), rows(rows_in), cols(cols_in), stride(stride_in), space(space_in) {}
  RowsTarget(MatrixView<float> view)
      : RowsTarget(view.data, view.rows, view.cols, view.cols, MemorySpace::host) {}
  /// The same for the host to fill. InternalError if they are not in host memory, or not one after
  /// another.
  operator MatrixView<float>() const;
};

/// Σ x² in fp64: sixteen partial sums (element l goes to sum l mod 16), folded in halves. The order
/// of the reference backend, so that norms are the same bits wherever they are computed.
double squared_norm_of(std::span<const float> row);

/// What brings a row to unit length; 1 for a zero row, which stays as it is.
double unit_factor(double squared_norm);

/// The fp32 rows of one layer where a backend works on them. Memory is kept from layer to layer.
class RowMatrix {
 public:
  virtual ~RowMatrix() = default;
  /// Makes room for [num_rows, dim]; contents are undefined. `to_keep` (ascending), if not empty:
  /// the rows that keep() will leave, so that these can be dealt out where several ranks have them.
  virtual void resize(std::size_t num_rows, std::size_t dim,
                      std::span<const std::int32_t> to_keep) = 0;
  void resize(std::size_t num_rows, std::size_t dim) { resize(num_rows, dim, {}); }
  virtual RowsView view() const = 0;
  /// `fill` puts values into columns [first, first + width) of all rows, at once.
  virtual void fill_columns(std::size_t first, std::size_t width,
                            const std::function<void(RowsTarget)>& fill) = 0;
  /// squared_norm_of every row.
  virtual std::vector<double> squared_norms() = 0;
  /// Row a becomes row rows[a], brought to unit length if `unit`; `rows` ascend. The others are
  /// gone.
  virtual void keep(std::span<const std::int32_t> rows, bool unit) = 0;
  /// Adds row i, brought to unit length, to the row of `sum` [num_labels, dim] that is its label,
  /// in fp64, rows in order; rows with negative labels are left out.
  virtual void add_unit_rows(std::span<const std::int32_t> label, Matrix<double>& sum) = 0;
};

/// In host memory; `threads` must outlive it.
std::unique_ptr<RowMatrix> make_host_rows(ThreadPool& threads);

/// A matrix as its bytes lie in a file: [num_rows, dim], or [dim, num_rows] if `transposed`.
struct RawShape {
  DType dtype = DType::f32;  ///< f32, f16 or bf16
  std::size_t num_rows = 0;
  std::size_t dim = 0;
  bool transposed = false;
};

/// Where a NaN or an infinity stands.
struct BadElement {
  std::size_t index = 0;  ///< of the element, in file order
  float value = 0;
};

/// Memory of a device for the bytes of a layer as they lie in the file. One thread brings them in
/// while another works with the backend; then the worker takes fp32 rows out of them.
class RawBytes {
 public:
  /// Fills a span with the next bytes.
  using Source = std::function<void(std::span<std::byte>)>;

  virtual ~RawBytes() = default;
  /// Makes room; contents are undefined.
  virtual void resize(std::size_t bytes) = 0;
  /// Bytes [offset, offset + bytes) from `next`, block by block: it fills pinned host memory, and
  /// one block is on its way to the device while the next is filled.
  virtual void receive(std::size_t offset, std::size_t bytes, const Source& next) = 0;
  /// The memory itself, for those who can write to it.
  virtual std::span<std::byte> device_bytes() = 0;
  /// Returns when everything received is there. Throws DeviceError.
  virtual void finish() = 0;
  /// Widens the matrix that begins at byte `offset` to fp32 rows, a neuron a row. Returns the first
  /// element that is not finite, in file order. For the worker's thread.
  virtual std::optional<BadElement> widen(std::size_t offset, const RawShape& shape,
                                          const RowsTarget& out) = 0;
};

}  // namespace moefy
