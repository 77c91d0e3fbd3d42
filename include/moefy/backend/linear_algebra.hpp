#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "moefy/backend/activation.hpp"
#include "moefy/backend/backend_matrix.hpp"
#include "moefy/backend/token_sums.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// What the hidden activations of an FFN layer are made with; null where the layer has none. A
/// neuron is a row.
struct FfnFactors {
  const BackendMatrix* gate = nullptr;       ///< [n, d]
  const BackendMatrix* up = nullptr;         ///< [n, d]; always there
  const BackendMatrix* gate_bias = nullptr;  ///< [1, n]
  const BackendMatrix* up_bias = nullptr;    ///< [1, n]
  Activation activation = Activation::identity;
};

/// Neurons of experts as a backend keeps them; a neuron may stand in several lists or in none.
class ExpertLists {
 public:
  using Lists = std::vector<std::vector<std::int32_t>>;
  ExpertLists(Lists experts, std::vector<std::int32_t> shared)
      : experts_(std::move(experts)), shared_(std::move(shared)) {}
  virtual ~ExpertLists() = default;
  ExpertLists(const ExpertLists&) = delete;
  ExpertLists& operator=(const ExpertLists&) = delete;
  const Lists& experts() const { return experts_; }
  /// Neurons of the always-on experts.
  const std::vector<std::int32_t>& shared() const { return shared_; }

 private:
  Lists experts_;
  std::vector<std::int32_t> shared_;
};

/// Norms of the experts' outputs without forming them, by the Gram matrix of each expert's down
/// rows.
class ExpertNorms {
 public:
  virtual ~ExpertNorms() = default;
  /// out [T, num_experts] = ‖Σ_{i in expert e} hidden[t, i] · down_i‖; hidden [T, n].
  virtual void compute(const BackendMatrix& hidden, BackendMatrix& out) = 0;
};

/// What the hidden activations of an expert's neurons are worth to a token.
enum class ExpertScore {
  l1,        ///< Σ |h|
  plain,     ///< |Σ h|
  positive,  ///< Σ max(h, 0)
  l2         ///< Σ h²
};

/// What becomes of a value on its way into another matrix.
enum class ValueMap {
  same,
  magnitude,   ///< |v|
  positive,    ///< max(v, 0)
  is_positive  ///< 1 where v > 0, else 0
};

/// Dense operations on recorded tokens. `reference` defines what each means; every backend is
/// tested against it. T are the tokens of a block, n neurons, d the hidden size, E experts. Results
/// depend neither on threads nor on what was computed before. Operands belong to this backend, and
/// a result is none of the operands; results are resized. One thread at a time. Every call may
/// throw DeviceError.
class LinearAlgebra {
 public:
  virtual ~LinearAlgebra() = default;
  /// For what the host does beside.
  virtual ThreadPool& threads() = 0;
  /// [0, 0].
  virtual std::unique_ptr<BackendMatrix> make_matrix() = 0;
  virtual std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m) = 0;
  virtual std::unique_ptr<GramSum> make_gram_sum(std::size_t n) = 0;
  virtual std::unique_ptr<ExpertLists> make_lists(ExpertLists::Lists experts,
                                                  std::vector<std::int32_t> shared) = 0;
  /// down [n, d] is read once; `lists` must outlive the result.
  virtual std::unique_ptr<ExpertNorms> make_expert_norms(const BackendMatrix& down,
                                                         const ExpertLists& lists) = 0;

  /// out [m, n] = a · bᵀ in fp32; a [m, k], b [n, k].
  virtual void multiply_transposed(const BackendMatrix& a, const BackendMatrix& b,
                                   BackendMatrix& out) = 0;
  /// out [m, n] = a · b in fp32; a [m, k], b [k, n].
  virtual void multiply(const BackendMatrix& a, const BackendMatrix& b, BackendMatrix& out) = 0;
  /// hidden [T, n] = act(inputs · gateᵀ) * (inputs · upᵀ), or act(inputs · upᵀ) where there is no
  /// gate; biases added before. inputs [T, d].
  virtual void ffn_hidden(const FfnFactors& factors, const BackendMatrix& inputs,
                          BackendMatrix& hidden) = 0;
  /// Σ_j rows[i, j]² of each row, in fp64.
  virtual std::vector<double> squared_row_norms(const BackendMatrix& rows) = 0;
  /// sums [cols] += Σ_i rows[i, j]² of each column, rows added in order in fp64.
  virtual void add_squares_of_columns(const BackendMatrix& rows, std::span<double> sums) = 0;
  /// out [T, columns] = map(from[t, columns[j]]).
  virtual void gather_columns(const BackendMatrix& from, std::span<const std::int32_t> columns,
                              ValueMap map, BackendMatrix& out) = 0;

  /// out [T, E]: the score of each expert; hidden [T, n]; sums in fp64.
  virtual void expert_scores(const BackendMatrix& hidden, const ExpertLists& lists,
                             ExpertScore score, BackendMatrix& out) = 0;
  /// marks [rows, cols] = 1 for the `count` largest values (magnitudes: of |value|) of each row,
  /// lowest column on ties, else 0. count <= cols.
  virtual void mark_largest(const BackendMatrix& values, std::size_t count, bool magnitudes,
                            BackendMatrix& marks) = 0;
  /// kept [T, n] = factor_t · hidden where a neuron is on, else 0; missing, if wanted, the
  /// reverse. On are neurons with a negative label, and those whose expert is chosen (not 0).
  /// chosen [T, E], label [n], factor [T] or empty: 1.
  virtual void part_hidden(const BackendMatrix& hidden, const BackendMatrix& chosen,
                           std::span<const std::int32_t> label, std::span<const float> factor,
                           BackendMatrix& kept, BackendMatrix* missing) = 0;
  /// out [T, n] = hidden less itself for every time that a neuron stands in a chosen expert (not 0
  /// in chosen [T, E]) or a shared one.
  virtual void leave_out(const BackendMatrix& hidden, const ExpertLists& lists,
                         const BackendMatrix& chosen, BackendMatrix& out) = 0;
  /// out [T, n] = (weight_t · hidden) · hidden; weight [T].
  virtual void weighted_squares(const BackendMatrix& hidden, std::span<const float> weight,
                                BackendMatrix& out) = 0;
};

}  // namespace moefy
