#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "cuda/runtime.hpp"
#include "moefy/backend/backend_matrix.hpp"

namespace moefy::cuda {

/// Copies device memory to any host memory, piece by piece through pinned memory; the values are
/// there afterwards.
template <class T>
void download_to(Stream& stream, const T* from, std::span<T> to) {
  constexpr std::size_t kPiece = (std::size_t{8} << 20) / sizeof(T);
  while (!to.empty()) {
    const std::size_t count = std::min(kPiece, to.size());
    const std::span<const T> piece = stream.download<T>(from, count);
    stream.wait();
    std::ranges::copy(piece, to.begin());
    from += count;
    to = to.subspan(count);
  }
}

/// fp32 values in device memory. Works on the stream of a backend, which must outlive it.
class CudaMatrix final : public BackendMatrix {
 public:
  CudaMatrix(int device, Stream& stream) : device_(device), stream_(stream) {}

  void resize(std::size_t rows, std::size_t cols) override;
  void assign(MatrixView<const float> values) override;
  MatrixView<const float> on_host() const override;
  void edit(const std::function<void(MatrixView<float>)>& change) override;

  /// What was assigned comes here when this is first asked for.
  const float* data() const;
  /// [rows, cols] to be written to.
  float* room(std::size_t rows, std::size_t cols);

 private:
  int device_;
  Stream& stream_;
  mutable DeviceBuffer<float> values_;
  mutable bool uploaded_ = true;
  bool written_ = false;  ///< values_ are more than room: else there is nothing to copy back
  mutable MatrixView<const float> on_host_;  ///< the same values, or without data: none yet
  mutable Matrix<float> copy_;
};

inline const CudaMatrix& own(const BackendMatrix& matrix) {
  return static_cast<const CudaMatrix&>(matrix);
}
inline CudaMatrix& own(BackendMatrix& matrix) { return static_cast<CudaMatrix&>(matrix); }

}  // namespace moefy::cuda
