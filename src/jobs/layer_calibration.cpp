#include "layer_calibration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "moefy/core/dtype.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/stopwatch.hpp"
#include "moefy/router/ridge_router.hpp"
#include "moefy/split/down_refit.hpp"

namespace moefy {

namespace {

void check_finite(MatrixView<const float> rows, const char* what) {
  const auto at = first_non_finite(rows.values());
  if (!at) return;
  throw InputError(fmt::format("{} of the layer: token {}, column {} is not finite", what,
                               *at / rows.cols, *at % rows.cols));
}

void round_router(DType dtype, RouterWeights& router) {
  std::vector<std::byte> raw(router.weight.values().size() * size_of(dtype));
  narrow(dtype, router.weight.values(), raw);
  widen(dtype, raw, router.weight.values());
}

}  // namespace

LayerCalibration::LayerCalibration(FfnLayer layer, const ExpertCounts& counts,
                                   const CalibrateConfig& config, const SplitConfig& split,
                                   SplitWorkspace& workspace)
    : layer_(std::move(layer)),
      counts_(counts),
      config_(config),
      split_(split),
      workspace_(workspace),
      ffn_(layer_, workspace.backend.algebra()),
      inputs_(layer_.hidden_size()),
      streams_(layer_.hidden_size()) {}

void LayerCalibration::add(MatrixView<const float> rows, MatrixView<const float> stream) {
  require(!result_, "begin comes before add, fit after it");
  require(rows.cols == layer_.hidden_size() && stream.cols == rows.cols && stream.rows == rows.rows,
          "inputs and stream [T, hidden_size]");
  try {
    check_finite(rows, "inputs");
    check_finite(stream, "residual stream");
  } catch (const Error&) {
    rethrow_with_context(fmt::format("layer {} ({})", layer_.info.index, layer_.info.name));
  }
  inputs_.append(rows);
  streams_.append(stream);
}

/// 1 / ‖stream + output‖² for each token, scaled to a mean of 1: an error counts by what it is
/// beside the stream that carries it on.
void LayerCalibration::weigh_tokens() {
  const std::size_t width = layer_.hidden_size();
  weights_.assign(tokens_->num_tokens(), 0.0F);
  const std::unique_ptr<BackendMatrix> outputs = algebra().make_matrix();
  std::vector<double> exact(weights_.size());
  std::vector<double> output_squares;
  tokens_->for_each_block([&](const CalibrationTokens::Block& block) {
    algebra().multiply(block.hidden, ffn_.down(), *outputs);
    for (const double squares : algebra().squared_row_norms(*outputs))
      output_squares.push_back(squares);
    const MatrixView<const float> output = std::as_const(*outputs).on_host();
    for (std::size_t t = 0; t < output.rows; ++t) {
      const std::span<const float> stream = streams_.all().row(block.first + t);
      double squares = 0;
      for (std::size_t j = 0; j < width; ++j) {
        const double value = static_cast<double>(stream[j]) +
                             static_cast<double>(output.row(t)[j]) +
                             (layer_.down_bias.empty() ? 0.0 : layer_.down_bias[j]);
        squares += value * value;
      }
      exact[block.first + t] = squares > 0 ? 1 / squares : 0;
    }
  });
  double mean = 0;
  for (const double weight : exact) mean += weight;
  mean /= static_cast<double>(std::max<std::size_t>(1, exact.size()));
  dense_square_ = 0;
  for (std::size_t t = 0; t < exact.size(); ++t) {
    weights_[t] = mean > 0 ? static_cast<float>(exact[t] / mean) : 1.0F;
    dense_square_ += weights_[t] * output_squares[t];
  }
}

std::vector<std::byte> LayerCalibration::fit(const std::stop_token& stop) {
  require(!result_, "add comes before fit");
  try {
    return fit_all(stop);
  } catch (const Error&) {
    rethrow_with_context(fmt::format("layer {} ({})", layer_.info.index, layer_.info.name));
  }
}

std::vector<std::byte> LayerCalibration::fit_all(const std::stop_token& stop) {
  const LayerInfo& info = layer_.info;
  Stopwatch stopwatch;
  std::vector<std::pair<std::string, double>> seconds;
  const auto phase = [&](const char* name) {
    seconds.emplace_back(name, stopwatch.seconds());
    stopwatch = Stopwatch();
  };
  tokens_.emplace(ffn_, inputs_, config_.cache_bytes);
  weigh_tokens();
  phase("activations");
  const RoutedSplitConfig routed{counts_.top_k, config_.rounds, config_.router_ridge};
  RoutedSplit found = split_by_routing(*tokens_, weights_, split_, routed, workspace_, stop);
  // What counts is the router as it will be stored.
  round_router(down_tensor(info).dtype, found.router);
  phase("split");
  LayerResult fitted = described(found);
  phase("describe");
  std::vector<std::byte> down;
  if (config_.refit > 0) {
    DownRefit refit = refit_down(*tokens_, weights_, dense_square_, fitted.router,
                                 fitted.partition.labels(), counts_.top_k, config_.refit);
    fitted.metrics.emplace_back("output_error", refit.error_after);
    fitted.metrics.emplace_back("output_error_without_refit", refit.error_before);
    down = down_as_in_file(down_tensor(info), refit.down);
    layer_.down = std::move(refit.down);
    ffn_.renew_down();
  } else {
    fitted.metrics.emplace_back("output_error",
                                routed_error(*tokens_, weights_, dense_square_, fitted.router,
                                             fitted.partition.labels(), counts_.top_k));
  }
  phase("refit");
  fitted.seconds = std::move(seconds);
  result_ = std::move(fitted);
  return encode_calibrated(*result_, down);
}

/// The result without the figures of its output.
LayerResult LayerCalibration::described(RoutedSplit& found) {
  const RowSource rows = rows_of(layer_);
  const SplitTask task{layer_.info, split_, rows, nullptr, {}};
  LayerResult fitted = result_of_labels(task, workspace_, "routed", found.label);
  fitted.router = std::move(found.router);
  if (!found.lost_energy.empty())
    fitted.metrics = {{"lost_energy_first", found.lost_energy.front()},
                      {"lost_energy_last", found.lost_energy.back()}};
  fitted.fingerprint = layer_.fingerprint;
  return fitted;
}

void LayerCalibration::take(CalibratedLayer fitted) {
  if (!fitted.down.empty()) {
    read_down(down_tensor(layer_.info), fitted.down, layer_.down);
    ffn_.renew_down();
  }
  result_ = std::move(fitted.result);
}

/// Of one layer as it was fitted or taken over.
class LayerCalibration::RoutedOutputs {
 public:
  explicit RoutedOutputs(const LayerCalibration& layer)
      : layer_(layer),
        algebra_(layer.algebra()),
        router_(layer.result().router, algebra_),
        chosen_(algebra_.make_matrix()),
        kept_(algebra_.make_matrix()),
        output_(algebra_.make_matrix()) {}

  /// inputs [T, d], hidden [T, n], out [T, d].
  void compute(const BackendMatrix& inputs, const BackendMatrix& hidden, MatrixView<float> out) {
    router_.choose(inputs, static_cast<std::size_t>(layer_.counts_.top_k), *chosen_);
    algebra_.part_hidden(hidden, *chosen_, layer_.result().partition.labels(), {}, *kept_, nullptr);
    algebra_.multiply(*kept_, layer_.ffn_.down(), *output_);
    std::ranges::copy(std::as_const(*output_).on_host().values(), out.data);
    const std::vector<float>& bias = layer_.layer_.down_bias;
    for (std::size_t t = 0; !bias.empty() && t < out.rows; ++t)
      for (std::size_t j = 0; j < out.cols; ++j) out.row(t)[j] += bias[j];
  }

 private:
  const LayerCalibration& layer_;
  LinearAlgebra& algebra_;
  RouterOnBackend router_;
  std::unique_ptr<BackendMatrix> chosen_, kept_, output_;
};

void LayerCalibration::apply(MatrixView<const float> rows, MatrixView<float> out) {
  require(result_.has_value(), "fit comes before apply");
  require(rows.cols == layer_.hidden_size() && out.rows == rows.rows && out.cols == rows.cols,
          "inputs and outputs [T, hidden_size]");
  RoutedOutputs outputs(*this);
  const std::unique_ptr<BackendMatrix> inputs = algebra().make_matrix();
  const std::unique_ptr<BackendMatrix> hidden = algebra().make_matrix();
  for (std::size_t first = 0; first < rows.rows; first += kTokenBlock) {
    const std::size_t count = std::min(kTokenBlock, rows.rows - first);
    inputs->assign({rows.data + first * rows.cols, count, rows.cols});
    ffn_.compute_hidden(*inputs, *hidden);
    outputs.compute(*inputs, *hidden, {out.data + first * out.cols, count, out.cols});
  }
}

void LayerCalibration::apply_to_added(MatrixView<float> out) {
  require(result_ && tokens_, "add and fit come before apply_to_added");
  require(out.rows == tokens_->num_tokens() && out.cols == layer_.hidden_size(),
          "outputs [T, hidden_size] of all tokens added");
  RoutedOutputs outputs(*this);
  tokens_->for_each_block([&](const CalibrationTokens::Block& block) {
    outputs.compute(block.inputs, block.hidden,
                    {out.data + block.first * out.cols, block.size(), out.cols});
  });
}

}  // namespace moefy
