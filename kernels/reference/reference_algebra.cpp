#include "reference/reference_algebra.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/backend/host_matrix.hpp"
#include "moefy/core/error.hpp"
#include "reference/reference_token_sums.hpp"

namespace moefy {

namespace {

double square(double value) { return value * value; }

/// Sums in fp64, rounded once; b's element is `at(l, j)`.
template <class At>
void product(MatrixView<const float> a, const At& at, MatrixView<float> out) {
  for (std::size_t i = 0; i < out.rows; ++i)
    for (std::size_t j = 0; j < out.cols; ++j) {
      double sum = 0;
      for (std::size_t l = 0; l < a.cols; ++l)
        sum += static_cast<double>(a.row(i)[l]) * static_cast<double>(at(l, j));
      out.row(i)[j] = static_cast<float>(sum);
    }
}

/// Forms each expert's output.
class ReferenceExpertNorms final : public ExpertNorms {
 public:
  ReferenceExpertNorms(MatrixView<const float> down, const ExpertLists& lists)
      : experts_(lists.experts()), down_(down.rows, down.cols) {
    std::ranges::copy(down.values(), down_.values().begin());
  }

  void compute(const BackendMatrix& hidden_in, BackendMatrix& out_in) override {
    const MatrixView<const float> hidden = hidden_in.on_host();
    const MatrixView<float> out = room_on_host(out_in, hidden.rows, experts_.size());
    for (std::size_t t = 0; t < hidden.rows; ++t)
      for (std::size_t e = 0; e < experts_.size(); ++e) {
        std::vector<double> output(down_.cols(), 0.0);
        for (const std::int32_t neuron : experts_[e]) {
          const auto i = static_cast<std::size_t>(neuron);
          for (std::size_t j = 0; j < output.size(); ++j)
            output[j] +=
                static_cast<double>(hidden.row(t)[i]) * static_cast<double>(down_.row(i)[j]);
        }
        double squares = 0;
        for (const double value : output) squares += square(value);
        out.row(t)[e] = static_cast<float>(std::sqrt(squares));
      }
  }

 private:
  const ExpertLists::Lists& experts_;
  Matrix<float> down_;
};

float mapped(float value, ValueMap map) {
  if (map == ValueMap::magnitude) return std::abs(value);
  if (map == ValueMap::positive) return std::max(value, 0.0F);
  if (map == ValueMap::is_positive) return value > 0 ? 1.0F : 0.0F;
  return value;
}

double term_of(double value, ExpertScore score) {
  if (score == ExpertScore::l1) return std::abs(value);
  if (score == ExpertScore::positive) return std::max(value, 0.0);
  if (score == ExpertScore::l2) return square(value);
  return value;
}

bool is_on(std::int32_t label, std::span<const float> chosen) {
  return label < 0 || chosen[static_cast<std::size_t>(label)] != 0;
}

}  // namespace

std::unique_ptr<BackendMatrix> ReferenceAlgebra::make_matrix() {
  return std::make_unique<HostMatrix>();
}

std::unique_ptr<ProductSum> ReferenceAlgebra::make_product_sum(std::size_t n, std::size_t m) {
  return reference::make_product_sum(n, m);
}

std::unique_ptr<GramSum> ReferenceAlgebra::make_gram_sum(std::size_t n) {
  return reference::make_gram_sum(n);
}

std::unique_ptr<ExpertLists> ReferenceAlgebra::make_lists(ExpertLists::Lists experts,
                                                          std::vector<std::int32_t> shared) {
  return std::make_unique<ExpertLists>(std::move(experts), std::move(shared));
}

std::unique_ptr<ExpertNorms> ReferenceAlgebra::make_expert_norms(const BackendMatrix& down,
                                                                 const ExpertLists& lists) {
  return std::make_unique<ReferenceExpertNorms>(down.on_host(), lists);
}

void ReferenceAlgebra::multiply_transposed(const BackendMatrix& a, const BackendMatrix& b,
                                           BackendMatrix& out) {
  require(a.cols() == b.cols(), "shapes of a · bᵀ");
  const MatrixView<const float> right = b.on_host();
  product(
      a.on_host(), [&](std::size_t l, std::size_t j) { return right.row(j)[l]; },
      room_on_host(out, a.rows(), b.rows()));
}

void ReferenceAlgebra::multiply(const BackendMatrix& a, const BackendMatrix& b,
                                BackendMatrix& out) {
  require(a.cols() == b.rows(), "shapes of a · b");
  const MatrixView<const float> right = b.on_host();
  product(
      a.on_host(), [&](std::size_t l, std::size_t j) { return right.row(l)[j]; },
      room_on_host(out, a.rows(), b.cols()));
}

void ReferenceAlgebra::ffn_hidden(const FfnFactors& factors, const BackendMatrix& inputs,
                                  BackendMatrix& hidden_in) {
  const auto with_bias = [&](const BackendMatrix& rows, const BackendMatrix* bias) {
    HostMatrix out;
    multiply_transposed(inputs, rows, out);
    const MatrixView<float> values = out.own();
    for (std::size_t t = 0; bias && t < values.rows; ++t)
      for (std::size_t i = 0; i < values.cols; ++i) values.row(t)[i] += bias->on_host().row(0)[i];
    Matrix<float> copy(values.rows, values.cols);
    std::ranges::copy(values.values(), copy.values().begin());
    return copy;
  };
  const bool gated = factors.gate != nullptr;
  Matrix<float> first =
      gated ? with_bias(*factors.gate, factors.gate_bias) : with_bias(*factors.up, factors.up_bias);
  apply_activation(factors.activation, first.values());
  if (gated) {
    const Matrix<float> second = with_bias(*factors.up, factors.up_bias);
    for (std::size_t i = 0; i < first.values().size(); ++i) first.values()[i] *= second.values()[i];
  }
  const MatrixView<float> hidden = room_on_host(hidden_in, first.rows(), first.cols());
  std::ranges::copy(first.values(), hidden.values().begin());
}

std::vector<double> ReferenceAlgebra::squared_row_norms(const BackendMatrix& rows) {
  std::vector<double> norms(rows.rows(), 0.0);
  for (std::size_t i = 0; i < norms.size(); ++i)
    for (const float value : rows.on_host().row(i)) norms[i] += square(value);
  return norms;
}

void ReferenceAlgebra::add_squares_of_columns(const BackendMatrix& rows, std::span<double> sums) {
  require(sums.size() == rows.cols(), "a sum for every column");
  for (std::size_t t = 0; t < rows.rows(); ++t)
    for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += square(rows.on_host().row(t)[j]);
}

void ReferenceAlgebra::gather_columns(const BackendMatrix& from,
                                      std::span<const std::int32_t> columns, ValueMap map,
                                      BackendMatrix& out_in) {
  const MatrixView<float> out = room_on_host(out_in, from.rows(), columns.size());
  for (std::size_t t = 0; t < out.rows; ++t)
    for (std::size_t j = 0; j < out.cols; ++j)
      out.row(t)[j] = mapped(from.on_host().row(t)[static_cast<std::size_t>(columns[j])], map);
}

void ReferenceAlgebra::expert_scores(const BackendMatrix& hidden, const ExpertLists& lists,
                                     ExpertScore score, BackendMatrix& out_in) {
  const MatrixView<float> out = room_on_host(out_in, hidden.rows(), lists.experts().size());
  for (std::size_t t = 0; t < out.rows; ++t)
    for (std::size_t e = 0; e < out.cols; ++e) {
      double sum = 0;
      for (const std::int32_t neuron : lists.experts()[e])
        sum += term_of(hidden.on_host().row(t)[static_cast<std::size_t>(neuron)], score);
      out.row(t)[e] = static_cast<float>(score == ExpertScore::plain ? std::abs(sum) : sum);
    }
}

void ReferenceAlgebra::mark_largest(const BackendMatrix& values, std::size_t count, bool magnitudes,
                                    BackendMatrix& marks_in) {
  require(count <= values.cols(), "at most as many marks as there are values");
  const MatrixView<float> marks = room_on_host(marks_in, values.rows(), values.cols());
  std::vector<std::size_t> order(values.cols());
  for (std::size_t t = 0; t < marks.rows; ++t) {
    const std::span<const float> row = values.on_host().row(t);
    const auto value = [&](std::size_t j) { return magnitudes ? std::abs(row[j]) : row[j]; };
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order,
                             [&](std::size_t a, std::size_t b) { return value(a) > value(b); });
    std::ranges::fill(marks.row(t), 0.0F);
    for (std::size_t k = 0; k < count; ++k) marks.row(t)[order[k]] = 1.0F;
  }
}

void ReferenceAlgebra::part_hidden(const BackendMatrix& hidden, const BackendMatrix& chosen,
                                   std::span<const std::int32_t> label,
                                   std::span<const float> factor, BackendMatrix& kept_in,
                                   BackendMatrix* missing_in) {
  require(chosen.rows() == hidden.rows() && label.size() == hidden.cols() &&
              (factor.empty() || factor.size() == hidden.rows()),
          "a choice for every token, a label for every neuron");
  const MatrixView<float> kept = room_on_host(kept_in, hidden.rows(), hidden.cols());
  MatrixView<float> missing;
  if (missing_in) missing = room_on_host(*missing_in, hidden.rows(), hidden.cols());
  for (std::size_t t = 0; t < kept.rows; ++t)
    for (std::size_t i = 0; i < kept.cols; ++i) {
      const float value = (factor.empty() ? 1.0F : factor[t]) * hidden.on_host().row(t)[i];
      const bool on = is_on(label[i], chosen.on_host().row(t));
      kept.row(t)[i] = on ? value : 0.0F;
      if (missing_in) missing.row(t)[i] = on ? 0.0F : value;
    }
}

void ReferenceAlgebra::leave_out(const BackendMatrix& hidden, const ExpertLists& lists,
                                 const BackendMatrix& chosen, BackendMatrix& out_in) {
  require(chosen.rows() == hidden.rows() && chosen.cols() == lists.experts().size(),
          "a choice for every token");
  const MatrixView<float> out = room_on_host(out_in, hidden.rows(), hidden.cols());
  std::ranges::copy(hidden.on_host().values(), out.values().begin());
  for (std::size_t t = 0; t < out.rows; ++t) {
    const auto take_off = [&](std::int32_t neuron) {
      const auto i = static_cast<std::size_t>(neuron);
      out.row(t)[i] -= hidden.on_host().row(t)[i];
    };
    for (const std::int32_t neuron : lists.shared()) take_off(neuron);
    for (std::size_t e = 0; e < lists.experts().size(); ++e)
      if (chosen.on_host().row(t)[e] != 0)
        for (const std::int32_t neuron : lists.experts()[e]) take_off(neuron);
  }
}

void ReferenceAlgebra::weighted_squares(const BackendMatrix& hidden, std::span<const float> weight,
                                        BackendMatrix& out_in) {
  require(weight.size() == hidden.rows(), "a weight for every token");
  const MatrixView<float> out = room_on_host(out_in, hidden.rows(), hidden.cols());
  for (std::size_t t = 0; t < out.rows; ++t)
    for (std::size_t i = 0; i < out.cols; ++i) {
      const float value = hidden.on_host().row(t)[i];
      out.row(t)[i] = weight[t] * value * value;
    }
}

}  // namespace moefy
