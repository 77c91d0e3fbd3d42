#include "moefy/split/down_refit.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/core/dtype.hpp"
#include "moefy/router/ridge_router.hpp"

namespace moefy {

namespace {

double sum_of(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

/// What stays on and what is missing, block by block, each row times the root of its token's
/// weight.
class RoutedBlocks {
 public:
  RoutedBlocks(CalibrationTokens& tokens, std::span<const float> token_weight,
               const RouterWeights& router, std::span<const std::int32_t> label, std::int64_t top_k)
      : tokens_(tokens),
        router_(router, tokens.algebra()),
        label_(label),
        top_k_(static_cast<std::size_t>(top_k)),
        chosen_(tokens.algebra().make_matrix()),
        kept_(tokens.algebra().make_matrix()),
        missing_(tokens.algebra().make_matrix()),
        output_(tokens.algebra().make_matrix()) {
    for (const float weight : token_weight) root_.push_back(std::sqrt(weight));
  }

  /// Calls body(kept [T, n], missing output [T, d]); adds up Σ w‖missing output‖².
  template <class Body>
  void for_each(const Body& body) {
    LinearAlgebra& algebra = tokens_.algebra();
    tokens_.for_each_block([&](const CalibrationTokens::Block& block) {
      router_.choose(block.inputs, top_k_, *chosen_);
      algebra.part_hidden(block.hidden, *chosen_, label_,
                          std::span(root_).subspan(block.first, block.size()), *kept_,
                          missing_.get());
      algebra.multiply(*missing_, tokens_.ffn().down(), *output_);
      missing_square += sum_of(algebra.squared_row_norms(*output_));
      body(*kept_, *output_);
    });
  }

  double missing_square = 0;

 private:
  CalibrationTokens& tokens_;
  RouterOnBackend router_;
  std::vector<float> root_;  ///< of the tokens' weights
  std::span<const std::int32_t> label_;
  std::size_t top_k_;
  std::unique_ptr<BackendMatrix> chosen_, kept_, missing_, output_;
};

void round_to(DType dtype, Matrix<float>& values) {
  std::vector<std::byte> raw(values.cols() * size_of(dtype));
  for (std::size_t i = 0; i < values.rows(); ++i) {
    narrow(dtype, values.row(i), raw);
    widen(dtype, raw, values.row(i));
  }
}

double relative(double error, double whole) { return whole > 0 ? std::max(0.0, error) / whole : 0; }

}  // namespace

DownRefit refit_down(CalibrationTokens& tokens, std::span<const float> token_weight,
                     double dense_square, const RouterWeights& router,
                     std::span<const std::int32_t> label, std::int64_t top_k, double lambda) {
  const FfnLayer& layer = tokens.layer();
  const std::unique_ptr<GramSum> gram = tokens.algebra().make_gram_sum(layer.num_neurons());
  const std::unique_ptr<ProductSum> products =
      tokens.algebra().make_product_sum(layer.num_neurons(), layer.hidden_size());
  RoutedBlocks blocks(tokens, token_weight, router, label, top_k);
  blocks.for_each([&](const BackendMatrix& kept, const BackendMatrix& missing) {
    gram->add(kept);
    products->add(kept, missing);
  });

  const double diagonal = sum_of(gram->diagonal()) / static_cast<double>(layer.num_neurons());
  DownRefit refit;
  refit.down.resize(layer.num_neurons(), layer.hidden_size());
  std::ranges::copy(layer.down.values(), refit.down.values().begin());
  refit.error_before = relative(blocks.missing_square, dense_square);
  refit.error_after = refit.error_before;
  if (diagonal > 0) {
    double used = lambda;
    const Matrix<double> right = products->read();
    ridge_factor(*gram, lambda, &used)->solve(*products);
    const Matrix<double> change = products->take();
    // With (G + r I) Δ = C the error is ‖missing‖² - ⟨Δ, C⟩ - r ‖Δ‖².
    double explained = 0;
    double squares = 0;
    for (std::size_t i = 0; i < change.values().size(); ++i) {
      explained += change.values()[i] * right.values()[i];
      squares += change.values()[i] * change.values()[i];
      refit.down.values()[i] += static_cast<float>(change.values()[i]);
    }
    refit.error_after =
        relative(blocks.missing_square - explained - used * diagonal * squares, dense_square);
  }
  round_to(layer.info.find(FfnRole::down)->dtype, refit.down);
  return refit;
}

double routed_error(CalibrationTokens& tokens, std::span<const float> token_weight,
                    double dense_square, const RouterWeights& router,
                    std::span<const std::int32_t> label, std::int64_t top_k) {
  RoutedBlocks blocks(tokens, token_weight, router, label, top_k);
  blocks.for_each([](const BackendMatrix&, const BackendMatrix&) {});
  return relative(blocks.missing_square, dense_square);
}

}  // namespace moefy
