#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

void oracle_scores(MatrixView<const float> hidden, std::span<const std::int32_t> label,
                   MatrixView<float> scores, ThreadPool& threads) {
  constexpr std::size_t kRows = 256;
  require(label.size() == hidden.cols && scores.rows == hidden.rows, "a label for every neuron");
  threads.for_each((hidden.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    std::vector<double> sum(scores.cols);
    for (std::size_t t = tile * kRows; t < std::min(hidden.rows, (tile + 1) * kRows); ++t) {
      std::ranges::fill(sum, 0.0);
      const std::span<const float> row = hidden.row(t);
      for (std::size_t i = 0; i < row.size(); ++i)
        if (label[i] >= 0) sum[static_cast<std::size_t>(label[i])] += std::abs(row[i]);
      for (std::size_t e = 0; e < sum.size(); ++e) scores.row(t)[e] = static_cast<float>(sum[e]);
    }
  });
}

}  // namespace moefy
