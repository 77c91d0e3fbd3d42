#pragma once

#include "cuda/blas.hpp"
#include "cuda/cuda_token_sums.hpp"
#include "cuda/runtime.hpp"
#include "cuda/token_products.hpp"
#include "moefy/backend/linear_algebra.hpp"

namespace moefy {

/// Matrices and sums stay in device memory; lists, labels and weights are sent with each call.
class CudaAlgebra final : public LinearAlgebra {
 public:
  /// Works on the stream of a backend; all arguments must outlive the object.
  CudaAlgebra(int device, ThreadPool& threads, cuda::Stream& stream, cuda::Blas& blas)
      : device_(device), threads_(threads), stream_(stream), products_(stream, blas) {}

  ThreadPool& threads() override { return threads_; }
  std::unique_ptr<BackendMatrix> make_matrix() override;
  std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m) override;
  std::unique_ptr<GramSum> make_gram_sum(std::size_t n) override;
  std::unique_ptr<ExpertLists> make_lists(ExpertLists::Lists experts,
                                          std::vector<std::int32_t> shared) override;
  std::unique_ptr<ExpertNorms> make_expert_norms(const BackendMatrix& down,
                                                 const ExpertLists& lists) override;

  void multiply_transposed(const BackendMatrix& a, const BackendMatrix& b,
                           BackendMatrix& out) override;
  void multiply(const BackendMatrix& a, const BackendMatrix& b, BackendMatrix& out) override;
  void ffn_hidden(const FfnFactors& factors, const BackendMatrix& inputs,
                  BackendMatrix& hidden) override;
  std::vector<double> squared_row_norms(const BackendMatrix& rows) override;
  void add_squares_of_columns(const BackendMatrix& rows, std::span<double> sums) override;
  void gather_columns(const BackendMatrix& from, std::span<const std::int32_t> columns,
                      ValueMap map, BackendMatrix& out) override;

  void expert_scores(const BackendMatrix& hidden, const ExpertLists& lists, ExpertScore score,
                     BackendMatrix& out) override;
  void mark_largest(const BackendMatrix& values, std::size_t count, bool magnitudes,
                    BackendMatrix& marks) override;
  void part_hidden(const BackendMatrix& hidden, const BackendMatrix& chosen,
                   std::span<const std::int32_t> label, std::span<const float> factor,
                   BackendMatrix& kept, BackendMatrix* missing) override;
  void leave_out(const BackendMatrix& hidden, const ExpertLists& lists, const BackendMatrix& chosen,
                 BackendMatrix& out) override;
  void weighted_squares(const BackendMatrix& hidden, std::span<const float> weight,
                        BackendMatrix& out) override;

 private:
  /// The calling thread works with this device from now on.
  void enter() const;
  cuda::SumPlace place() { return {device_, stream_, products_}; }
  const std::int32_t* upload(std::span<const std::int32_t> values);
  const float* upload(std::span<const float> values);

  int device_;
  ThreadPool& threads_;
  cuda::Stream& stream_;
  cuda::TokenProducts products_;
  cuda::DeviceBuffer<float> up_;  ///< inputs · upᵀ of a gated layer
  cuda::DeviceBuffer<std::int32_t> ids_;
  cuda::DeviceBuffer<float> weights_;
  cuda::DeviceBuffer<double> sums_;
};

}  // namespace moefy
