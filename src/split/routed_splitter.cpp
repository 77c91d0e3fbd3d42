#include <algorithm>
#include <numeric>

#include "moefy/core/error.hpp"
#include "moefy/split/routed_split.hpp"

namespace moefy {

namespace {

/// What an error on a token counts: 1 / (m + ‖y_t‖²), y_t the layer's output and m the median of
/// its squares, with mean 1. Tokens with huge outputs would otherwise decide alone. (The residual
/// stream, which `calibrate` weighs by, is not in recordings.)
std::vector<float> weights_of_tokens(CalibrationTokens& tokens) {
  LinearAlgebra& algebra = tokens.algebra();
  std::vector<double> squares;
  const std::unique_ptr<BackendMatrix> output = algebra.make_matrix();
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    algebra.multiply(block.hidden, tokens.ffn().down(), *output);
    const std::vector<double> part = algebra.squared_row_norms(*output);
    squares.insert(squares.end(), part.begin(), part.end());
  });
  std::vector<double> order = squares;
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(order.size() / 2);
  std::ranges::nth_element(order, middle);
  const double median = *middle > 0 ? *middle : 1.0;
  double sum = 0;
  for (double& square : squares) sum += (square = 1 / (median + square));
  std::vector<float> weight;
  for (const double value : squares)
    weight.push_back(static_cast<float>(value * static_cast<double>(squares.size()) / sum));
  return weight;
}

/// Joint refinement of partition and ridge router (split_by_routing) on recorded inputs.
class RoutedSplitter : public Splitter {
 public:
  std::string name() const override { return "routed"; }
  RecordingNeed needs(const SplitConfig&) const override { return RecordingNeed::inputs; }

  LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const override {
    require(task.tokens != nullptr, "a method that needs recordings got none");
    RoutedSplitConfig routed;
    routed.top_k = task.config.top_k;
    RoutedSplit found = split_by_routing(*task.tokens, weights_of_tokens(*task.tokens), task.config,
                                         routed, workspace, task.stop);
    LayerResult result = result_of_labels(task, workspace, name(), found.label);
    result.router = std::move(found.router);
    if (!found.lost_energy.empty())
      result.metrics = {{"lost_energy_first", found.lost_energy.front()},
                        {"lost_energy_last", found.lost_energy.back()}};
    return result;
  }
};

}  // namespace

std::unique_ptr<Splitter> make_routed_splitter() { return std::make_unique<RoutedSplitter>(); }

}  // namespace moefy
