#pragma once

#include "moefy/backend/linear_algebra.hpp"

namespace moefy {

/// Tiles of 256 tokens over a thread pool, products by OpenBLAS.
class CpuAlgebra final : public LinearAlgebra {
 public:
  /// `threads` must outlive the object.
  explicit CpuAlgebra(ThreadPool& threads) : threads_(threads) {}

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
  ThreadPool& threads_;
  Matrix<float> up_;  ///< inputs · upᵀ of a gated layer
};

}  // namespace moefy
