#include "moefy/model/calibration_tokens.hpp"

#include <algorithm>

namespace moefy {

CalibrationTokens::CalibrationTokens(const FfnLayer& layer, const LayerInputs& inputs,
                                     std::size_t cache_bytes, ThreadPool& threads)
    : layer_(layer), inputs_(inputs), cache_bytes_(cache_bytes), threads_(threads) {}

void CalibrationTokens::for_each_block(const std::function<void(const Block&)>& body) {
  const std::size_t tokens = num_tokens();
  const std::size_t block_bytes = kTokenBlock * layer_.num_neurons() * sizeof(float);
  for (std::size_t first = 0, block = 0; first < tokens; first += kTokenBlock, ++block) {
    const std::size_t count = std::min(kTokenBlock, tokens - first);
    const MatrixView<const float> inputs = inputs_.rows(first, count, input_scratch_);
    if (block < cached_.size()) {
      body({first, inputs, cached_[block].view()});
      continue;
    }
    // Only whole prefixes are kept, so that a block's place in the cache is its number.
    const bool keep = (block + 1) * block_bytes <= cache_bytes_;
    Matrix<float>& hidden = keep ? cached_.emplace_back() : hidden_scratch_;
    hidden.resize(count, layer_.num_neurons());
    ffn_hidden(layer_, inputs, hidden.view(), factor_scratch_, threads_);
    body({first, inputs, hidden.view()});
  }
}

std::vector<double> squared_row_norms(MatrixView<const float> rows, ThreadPool& threads) {
  constexpr std::size_t kRows = 256;
  std::vector<double> norms(rows.rows);
  threads.for_each((rows.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    for (std::size_t i = tile * kRows; i < std::min(rows.rows, tile * kRows + kRows); ++i) {
      double sum = 0;
      for (const float value : rows.row(i))
        sum += static_cast<double>(value) * static_cast<double>(value);
      norms[i] = sum;
    }
  });
  return norms;
}

}  // namespace moefy
