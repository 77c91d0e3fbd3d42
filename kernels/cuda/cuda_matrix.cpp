#include "cuda/cuda_matrix.hpp"

#include <utility>

#include "moefy/core/error.hpp"

namespace moefy::cuda {

void CudaMatrix::resize(std::size_t rows, std::size_t cols) {
  check(cudaSetDevice(device_), "choosing the device");
  values_.resize(rows * cols);
  uploaded_ = true;
  written_ = false;
  on_host_ = {};
  rows_ = rows;
  cols_ = cols;
}

void CudaMatrix::assign(MatrixView<const float> values) {
  uploaded_ = false;
  on_host_ = values;
  rows_ = values.rows;
  cols_ = values.cols;
}

const float* CudaMatrix::data() const {
  if (!uploaded_) {
    check(cudaSetDevice(device_), "choosing the device");
    stream_.upload(on_host_.values(), values_.resize(size()));
    uploaded_ = true;
  }
  return values_.data();
}

MatrixView<const float> CudaMatrix::on_host() const {
  if (on_host_.data != nullptr) return on_host_;
  check(cudaSetDevice(device_), "choosing the device");
  copy_.resize(rows_, cols_);
  if (written_) download_to(stream_, values_.data(), copy_.values());
  return on_host_ = std::as_const(copy_).view();
}

void CudaMatrix::edit(const std::function<void(MatrixView<float>)>& change) {
  on_host();
  require(on_host_.data == copy_.values().data(), "values of the matrix' own");
  change(copy_.view());
  check(cudaSetDevice(device_), "choosing the device");
  stream_.upload(std::as_const(copy_).values(), values_.data());
  written_ = true;
}

float* CudaMatrix::room(std::size_t rows, std::size_t cols) {
  resize(rows, cols);
  written_ = true;
  return values_.data();
}

}  // namespace moefy::cuda
