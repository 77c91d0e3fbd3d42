#include "cpu/cpu_algebra.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>

#include "cpu/blas_tiles.hpp"
#include "cpu/cpu_token_sums.hpp"
#include "moefy/backend/host_matrix.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// body(t) for every row, in tiles on the pool.
template <class Body>
void for_rows(std::size_t rows, ThreadPool& threads, const Body& body) {
  cpu::for_row_tiles(rows, threads, [&](std::size_t first, std::size_t count) {
    for (std::size_t t = first; t < first + count; ++t) body(t);
  });
}

double square(float value) { return static_cast<double>(value) * static_cast<double>(value); }

void gather(std::span<const float> from, std::span<const std::int32_t> places,
            std::span<float> to) {
  for (std::size_t i = 0; i < places.size(); ++i) to[i] = from[static_cast<std::size_t>(places[i])];
}

/// √(left · right), as far as that is not negative by rounding.
float norm_of_product(std::span<const float> left, std::span<const float> right) {
  constexpr std::size_t kLanes = 4;  // one sum would wait for itself at each step
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= left.size(); i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      sums[lane] += static_cast<double>(left[i + lane]) * static_cast<double>(right[i + lane]);
  for (; i < left.size(); ++i)
    sums[0] += static_cast<double>(left[i]) * static_cast<double>(right[i]);
  return static_cast<float>(std::sqrt(std::max(0.0, (sums[0] + sums[1]) + (sums[2] + sums[3]))));
}

void add_bias(std::span<float> row, const BackendMatrix* bias) {
  if (bias == nullptr) return;
  const std::span<const float> values = bias->on_host().row(0);
  for (std::size_t i = 0; i < values.size(); ++i) row[i] += values[i];
}

class CpuExpertNorms final : public ExpertNorms {
 public:
  CpuExpertNorms(MatrixView<const float> down, const ExpertLists& lists, ThreadPool& threads)
      : experts_(lists.experts()), threads_(threads) {
    Matrix<float> rows;
    for (const std::vector<std::int32_t>& expert : experts_) {
      columns_.insert(columns_.end(), expert.begin(), expert.end());
      rows.resize(expert.size(), down.cols);
      for (std::size_t i = 0; i < expert.size(); ++i)
        std::ranges::copy(down.row(static_cast<std::size_t>(expert[i])), rows.row(i).begin());
      gram_.emplace_back(expert.size(), expert.size());
      cpu::multiply_transposed(rows.view(), rows.view(), gram_.back().view(), threads_);
    }
  }

  void compute(const BackendMatrix& hidden_in, BackendMatrix& out_in) override {
    const MatrixView<const float> hidden = hidden_in.on_host();
    const MatrixView<float> out = room_on_host(out_in, hidden.rows, experts_.size());
    cpu::for_row_tiles(hidden.rows, threads_, [&](std::size_t first, std::size_t count) {
      Matrix<float> parts(kTokens, columns_.size());
      for (std::size_t t = first; t < first + count; t += kTokens)
        compute_few(hidden, t, std::min(kTokens, first + count - t), parts, out);
    });
  }

 private:
  static constexpr std::size_t kTokens = 32;  // whose activations a cache holds

  /// parts: room for the activations of kTokens tokens, expert by expert.
  void compute_few(MatrixView<const float> hidden, std::size_t first, std::size_t count,
                   Matrix<float>& parts, MatrixView<float> out) const {
    for (std::size_t t = 0; t < count; ++t) gather(hidden.row(first + t), columns_, parts.row(t));
    Matrix<float> product;
    std::size_t begin = 0;
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      const std::size_t size = experts_[e].size();
      product.resize(count, size);
      cpu::multiply_tile({parts.values().data(), count, columns_.size()}, begin, gram_[e].view(),
                         product.view());
      for (std::size_t t = 0; t < count; ++t)
        out.row(first + t)[e] = norm_of_product(parts.row(t).subspan(begin, size), product.row(t));
      begin += size;
    }
  }

  const ExpertLists::Lists& experts_;
  ThreadPool& threads_;
  std::vector<std::int32_t> columns_;  ///< of all experts, one after the other
  std::vector<Matrix<float>> gram_;    ///< by expert: K = down_e · down_eᵀ
};

float mapped(float value, ValueMap map) {
  switch (map) {
    case ValueMap::same:
      return value;
    case ValueMap::magnitude:
      return std::abs(value);
    case ValueMap::positive:
      return std::max(value, 0.0F);
    case ValueMap::is_positive:
      return value > 0 ? 1.0F : 0.0F;
  }
  throw InternalError("unknown map of values");
}

/// Σ term(h) over an expert's neurons.
template <class Term>
double sum_over(std::span<const float> hidden, std::span<const std::int32_t> members,
                const Term& term) {
  double sum = 0;
  for (const std::int32_t neuron : members)
    sum += term(static_cast<double>(hidden[static_cast<std::size_t>(neuron)]));
  return sum;
}

double score_of(std::span<const float> hidden, std::span<const std::int32_t> members,
                ExpertScore score) {
  switch (score) {
    case ExpertScore::l1:
      return sum_over(hidden, members, [](double value) { return std::abs(value); });
    case ExpertScore::plain:
      return std::abs(sum_over(hidden, members, [](double value) { return value; }));
    case ExpertScore::positive:
      return sum_over(hidden, members, [](double value) { return std::max(value, 0.0); });
    case ExpertScore::l2:
      return sum_over(hidden, members, [](double value) { return value * value; });
  }
  throw InternalError("unknown score of experts");
}

/// Which neurons a token's routing leaves on, as masks of bits: a branch would be foreseen by no
/// CPU.
class NeuronMask {
 public:
  explicit NeuronMask(std::span<const std::int32_t> label) : label_(label), on_(label.size()) {}

  /// For a token with chosen [num_experts].
  void set(std::span<const float> chosen) {
    expert_on_.clear();
    for (const float value : chosen) expert_on_.push_back(value != 0 ? kOn : 0);
    for (std::size_t i = 0; i < label_.size(); ++i)
      on_[i] = label_[i] < 0 ? kOn : expert_on_[static_cast<std::size_t>(label_[i])];
  }

  /// to [n] = scale · from where a neuron is on (wants_on) or off, else 0.
  void part(std::span<const float> from, float scale, bool wants_on, std::span<float> to) const {
    const std::uint32_t flip = wants_on ? 0 : kOn;
    for (std::size_t i = 0; i < from.size(); ++i)
      to[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(scale * from[i]) & (on_[i] ^ flip));
  }

 private:
  static constexpr std::uint32_t kOn = 0xFFFFFFFFU;
  std::span<const std::int32_t> label_;
  std::vector<std::uint32_t> expert_on_;
  std::vector<std::uint32_t> on_;
};

/// The larger the value the larger the key; of equal values that of the lower column.
std::uint64_t rank_key(float value, std::size_t column) {
  constexpr std::uint32_t kSign = 0x80000000U;
  const auto bits = std::bit_cast<std::uint32_t>(value + 0.0F);  // -0 equals 0
  const std::uint32_t ordered = (bits & kSign) != 0 ? ~bits : bits | kSign;
  return std::uint64_t{ordered} << 32 | (0xFFFFFFFFU - static_cast<std::uint32_t>(column));
}

std::size_t column_of(std::uint64_t key) { return 0xFFFFFFFFU - (key & 0xFFFFFFFFU); }

}  // namespace

std::unique_ptr<BackendMatrix> CpuAlgebra::make_matrix() { return std::make_unique<HostMatrix>(); }

std::unique_ptr<ProductSum> CpuAlgebra::make_product_sum(std::size_t n, std::size_t m) {
  return cpu::make_product_sum(n, m, threads_);
}

std::unique_ptr<GramSum> CpuAlgebra::make_gram_sum(std::size_t n) {
  return cpu::make_gram_sum(n, threads_);
}

std::unique_ptr<ExpertLists> CpuAlgebra::make_lists(ExpertLists::Lists experts,
                                                    std::vector<std::int32_t> shared) {
  return std::make_unique<ExpertLists>(std::move(experts), std::move(shared));
}

std::unique_ptr<ExpertNorms> CpuAlgebra::make_expert_norms(const BackendMatrix& down,
                                                           const ExpertLists& lists) {
  return std::make_unique<CpuExpertNorms>(down.on_host(), lists, threads_);
}

void CpuAlgebra::multiply_transposed(const BackendMatrix& a, const BackendMatrix& b,
                                     BackendMatrix& out) {
  cpu::multiply_transposed(a.on_host(), b.on_host(), room_on_host(out, a.rows(), b.rows()),
                           threads_);
}

void CpuAlgebra::multiply(const BackendMatrix& a, const BackendMatrix& b, BackendMatrix& out) {
  cpu::multiply(a.on_host(), b.on_host(), room_on_host(out, a.rows(), b.cols()), threads_);
}

void CpuAlgebra::ffn_hidden(const FfnFactors& factors, const BackendMatrix& inputs,
                            BackendMatrix& hidden_in) {
  const bool gated = factors.gate != nullptr;
  multiply_transposed(inputs, gated ? *factors.gate : *factors.up, hidden_in);
  const MatrixView<float> hidden = static_cast<HostMatrix&>(hidden_in).own();
  if (gated) {
    up_.resize(hidden.rows, hidden.cols);
    cpu::multiply_transposed(inputs.on_host(), factors.up->on_host(), up_.view(), threads_);
  }
  for_rows(hidden.rows, threads_, [&](std::size_t t) {
    const std::span<float> row = hidden.row(t);
    add_bias(row, gated ? factors.gate_bias : factors.up_bias);
    apply_activation(factors.activation, row);
    if (!gated) return;
    const std::span<float> factor = up_.row(t);
    add_bias(factor, factors.up_bias);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] *= factor[i];
  });
}

std::vector<double> CpuAlgebra::squared_row_norms(const BackendMatrix& rows_in) {
  const MatrixView<const float> rows = rows_in.on_host();
  std::vector<double> norms(rows.rows);
  for_rows(rows.rows, threads_, [&](std::size_t i) {
    double sum = 0;
    for (const float value : rows.row(i)) sum += square(value);
    norms[i] = sum;
  });
  return norms;
}

void CpuAlgebra::add_squares_of_columns(const BackendMatrix& rows_in, std::span<double> sums) {
  constexpr std::size_t kColumns = 64;
  const MatrixView<const float> rows = rows_in.on_host();
  require(sums.size() == rows.cols, "a sum for every column");
  threads_.for_each((sums.size() + kColumns - 1) / kColumns, [&](std::size_t tile) {
    const std::size_t end = std::min(sums.size(), (tile + 1) * kColumns);
    for (std::size_t t = 0; t < rows.rows; ++t) {
      const std::span<const float> row = rows.row(t);
      for (std::size_t i = tile * kColumns; i < end; ++i) sums[i] += square(row[i]);
    }
  });
}

void CpuAlgebra::gather_columns(const BackendMatrix& from_in, std::span<const std::int32_t> columns,
                                ValueMap map, BackendMatrix& out_in) {
  const MatrixView<const float> from = from_in.on_host();
  const MatrixView<float> out = room_on_host(out_in, from.rows, columns.size());
  for_rows(from.rows, threads_, [&](std::size_t t) {
    const std::span<float> row = out.row(t);
    gather(from.row(t), columns, row);
    if (map == ValueMap::same) return;
    for (float& value : row) value = mapped(value, map);
  });
}

void CpuAlgebra::expert_scores(const BackendMatrix& hidden_in, const ExpertLists& lists,
                               ExpertScore score, BackendMatrix& out_in) {
  const MatrixView<const float> hidden = hidden_in.on_host();
  const ExpertLists::Lists& experts = lists.experts();
  const MatrixView<float> out = room_on_host(out_in, hidden.rows, experts.size());
  for_rows(hidden.rows, threads_, [&](std::size_t t) {
    for (std::size_t e = 0; e < experts.size(); ++e)
      out.row(t)[e] = static_cast<float>(score_of(hidden.row(t), experts[e], score));
  });
}

void CpuAlgebra::mark_largest(const BackendMatrix& values_in, std::size_t count, bool magnitudes,
                              BackendMatrix& marks_in) {
  const MatrixView<const float> values = values_in.on_host();
  require(count <= values.cols, "at most as many marks as there are values");
  const MatrixView<float> marks = room_on_host(marks_in, values.rows, values.cols);
  cpu::for_row_tiles(values.rows, threads_, [&](std::size_t first, std::size_t rows) {
    std::vector<std::uint64_t> keys(values.cols);
    for (std::size_t t = first; t < first + rows; ++t) {
      const std::span<const float> row = values.row(t);
      std::ranges::fill(marks.row(t), 0.0F);
      if (count == 0) continue;
      for (std::size_t j = 0; j < row.size(); ++j)
        keys[j] = rank_key(magnitudes ? std::abs(row[j]) : row[j], j);
      std::ranges::nth_element(keys, keys.begin() + static_cast<std::ptrdiff_t>(count - 1),
                               std::ranges::greater{});
      for (std::size_t i = 0; i < count; ++i) marks.row(t)[column_of(keys[i])] = 1.0F;
    }
  });
}

void CpuAlgebra::part_hidden(const BackendMatrix& hidden_in, const BackendMatrix& chosen_in,
                             std::span<const std::int32_t> label, std::span<const float> factor,
                             BackendMatrix& kept_in, BackendMatrix* missing_in) {
  const MatrixView<const float> hidden = hidden_in.on_host();
  const MatrixView<const float> chosen = chosen_in.on_host();
  require(chosen.rows == hidden.rows && label.size() == hidden.cols &&
              (factor.empty() || factor.size() == hidden.rows),
          "a choice for every token, a label for every neuron");
  const MatrixView<float> kept = room_on_host(kept_in, hidden.rows, hidden.cols);
  MatrixView<float> missing;
  if (missing_in) missing = room_on_host(*missing_in, hidden.rows, hidden.cols);
  cpu::for_row_tiles(hidden.rows, threads_, [&](std::size_t first, std::size_t count) {
    NeuronMask mask(label);
    for (std::size_t t = first; t < first + count; ++t) {
      const std::span<const float> from = hidden.row(t);
      mask.set(chosen.row(t));
      const float scale = factor.empty() ? 1.0F : factor[t];
      mask.part(from, scale, true, kept.row(t));
      if (missing_in) mask.part(from, scale, false, missing.row(t));
    }
  });
}

void CpuAlgebra::leave_out(const BackendMatrix& hidden_in, const ExpertLists& lists,
                           const BackendMatrix& chosen_in, BackendMatrix& out_in) {
  const MatrixView<const float> hidden = hidden_in.on_host();
  const MatrixView<const float> chosen = chosen_in.on_host();
  require(chosen.rows == hidden.rows && chosen.cols == lists.experts().size(),
          "a choice for every token");
  const MatrixView<float> out = room_on_host(out_in, hidden.rows, hidden.cols);
  for_rows(hidden.rows, threads_, [&](std::size_t t) {
    const std::span<const float> from = hidden.row(t);
    const std::span<float> to = out.row(t);
    std::ranges::copy(from, to.begin());
    const auto take_off = [&](std::span<const std::int32_t> list) {
      for (const std::int32_t neuron : list) {
        const auto id = static_cast<std::size_t>(neuron);
        to[id] -= from[id];
      }
    };
    take_off(lists.shared());
    for (std::size_t e = 0; e < chosen.cols; ++e)
      if (chosen.row(t)[e] != 0) take_off(lists.experts()[e]);
  });
}

void CpuAlgebra::weighted_squares(const BackendMatrix& hidden_in, std::span<const float> weight,
                                  BackendMatrix& out_in) {
  const MatrixView<const float> hidden = hidden_in.on_host();
  require(weight.size() == hidden.rows, "a weight for every token");
  const MatrixView<float> out = room_on_host(out_in, hidden.rows, hidden.cols);
  for_rows(hidden.rows, threads_, [&](std::size_t t) {
    const std::span<const float> from = hidden.row(t);
    const std::span<float> to = out.row(t);
    for (std::size_t i = 0; i < from.size(); ++i) to[i] = weight[t] * from[i] * from[i];
  });
}

}  // namespace moefy
