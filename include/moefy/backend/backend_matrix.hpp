#pragma once

#include <cstddef>
#include <functional>

#include "moefy/core/matrix.hpp"

namespace moefy {

/// A row-major fp32 matrix in a backend's memory, which must outlive it. The operations of
/// LinearAlgebra take their operands and leave their results here, so that nothing crosses a bus
/// but what the host asks for.
class BackendMatrix {
 public:
  virtual ~BackendMatrix() = default;
  BackendMatrix(const BackendMatrix&) = delete;
  BackendMatrix& operator=(const BackendMatrix&) = delete;

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t size() const { return rows_ * cols_; }

  /// Contents are undefined afterwards; memory is kept where it is large enough. DeviceError.
  virtual void resize(std::size_t rows, std::size_t cols) = 0;
  /// Becomes these values of host memory, which must stay as and where they are for as long as they
  /// are used: backends on the host do not copy them.
  virtual void assign(MatrixView<const float> values) = 0;
  /// The values for the host to read, valid until the next change: what was assigned, the memory
  /// itself, or a copy that is made once.
  virtual MatrixView<const float> on_host() const = 0;
  /// The host changes the values in place. Not for values that were assigned.
  virtual void edit(const std::function<void(MatrixView<float>)>& change) = 0;

 protected:
  BackendMatrix() = default;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
};

}  // namespace moefy
