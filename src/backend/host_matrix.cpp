#include "moefy/backend/host_matrix.hpp"

#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {

void HostMatrix::resize(std::size_t rows, std::size_t cols) {
  own_.resize(rows, cols);
  values_ = std::as_const(own_).view();
  rows_ = rows;
  cols_ = cols;
}

void HostMatrix::assign(MatrixView<const float> values) {
  values_ = values;
  rows_ = values.rows;
  cols_ = values.cols;
}

MatrixView<float> HostMatrix::own() {
  require(values_.data == own_.values().data(), "values of the matrix' own");
  return own_.view();
}

void HostMatrix::edit(const std::function<void(MatrixView<float>)>& change) { change(own()); }

MatrixView<float> room_on_host(BackendMatrix& matrix, std::size_t rows, std::size_t cols) {
  matrix.resize(rows, cols);
  return static_cast<HostMatrix&>(matrix).own();
}

}  // namespace moefy
