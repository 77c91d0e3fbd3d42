#pragma once

#include "moefy/backend/backend_matrix.hpp"

namespace moefy {

/// The matrix of backends that compute on the host.
class HostMatrix final : public BackendMatrix {
 public:
  void resize(std::size_t rows, std::size_t cols) override;
  void assign(MatrixView<const float> values) override;
  MatrixView<const float> on_host() const override { return values_; }
  void edit(const std::function<void(MatrixView<float>)>& change) override;

  /// Memory of its own, to be written to.
  MatrixView<float> own();

 private:
  Matrix<float> own_;
  MatrixView<const float> values_;  ///< own_, or what was assigned
};

/// `matrix`, of a backend on the host, as [rows, cols] to be written to.
MatrixView<float> room_on_host(BackendMatrix& matrix, std::size_t rows, std::size_t cols);

}  // namespace moefy
