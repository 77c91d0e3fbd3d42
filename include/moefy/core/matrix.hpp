#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace moefy {

/// A row-major matrix that somebody else owns; rows are contiguous.
template <class T>
struct MatrixView {
  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;

  MatrixView() = default;
  MatrixView(T* data_in, std::size_t rows_in, std::size_t cols_in)
      : data(data_in), rows(rows_in), cols(cols_in) {}
  /// A view of const elements is made from a view of mutable ones.
  template <class U>
  requires std::is_same_v<T, const U> MatrixView(const MatrixView<U>& other)
      : data(other.data), rows(other.rows), cols(other.cols) {}

  std::size_t size() const { return rows * cols; }
  bool empty() const { return size() == 0; }
  std::span<T> row(std::size_t i) const { return {data + i * cols, cols}; }
  std::span<T> values() const { return {data, size()}; }
};

/// At least `bytes` bytes aligned to 64, not initialised, to be freed with std::free. Large blocks
/// ask for huge pages, which cost less to touch first. Throws std::bad_alloc.
void* allocate_aligned(std::size_t bytes);

/// Memory aligned to 64 bytes and not initialised. `resize` keeps the block when it is large enough
/// (contents are then kept, too), so that buffers are reused from layer to layer.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size) { resize(size); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    return *this;
  }

  void resize(std::size_t size) {
    if (size > capacity_) {
      data_.reset();
      capacity_ = size_ = 0;
      data_.reset(static_cast<T*>(allocate_aligned(size * sizeof(T))));
      capacity_ = size;
    }
    size_ = size;
  }
  void release() {
    data_.reset();
    size_ = capacity_ = 0;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data(), size_}; }
  std::span<const T> span() const { return {data(), size_}; }

 private:
  struct Free {
    void operator()(T* block) const { std::free(block); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

/// A row-major matrix that owns its (aligned, uninitialised) memory.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) { resize(rows, cols); }
  void resize(std::size_t rows, std::size_t cols) {
    buffer_.resize(rows * cols);
    rows_ = rows;
    cols_ = cols;
  }
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::span<T> row(std::size_t i) { return {buffer_.data() + i * cols_, cols_}; }
  std::span<const T> row(std::size_t i) const { return {buffer_.data() + i * cols_, cols_}; }
  std::span<T> values() { return {buffer_.data(), rows_ * cols_}; }
  std::span<const T> values() const { return {buffer_.data(), rows_ * cols_}; }
  MatrixView<T> view() { return {buffer_.data(), rows_, cols_}; }
  MatrixView<const T> view() const { return {buffer_.data(), rows_, cols_}; }

 private:
  AlignedBuffer<T> buffer_;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
};

}  // namespace moefy
