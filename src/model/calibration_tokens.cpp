#include "moefy/model/calibration_tokens.hpp"

#include <algorithm>

namespace moefy {

CalibrationTokens::CalibrationTokens(const FfnOnBackend& ffn, const LayerInputs& inputs,
                                     std::size_t cache_bytes)
    : ffn_(ffn),
      inputs_(inputs),
      cache_bytes_(cache_bytes),
      block_inputs_(ffn.algebra().make_matrix()),
      block_hidden_(ffn.algebra().make_matrix()) {}

void CalibrationTokens::for_each_block(const std::function<void(const Block&)>& body) {
  const std::size_t tokens = num_tokens();
  const std::size_t block_bytes = kTokenBlock * layer().num_neurons() * sizeof(float);
  for (std::size_t first = 0, block = 0; first < tokens; first += kTokenBlock, ++block) {
    const std::size_t count = std::min(kTokenBlock, tokens - first);
    block_inputs_->assign(inputs_.rows(first, count, input_scratch_));
    if (block < cached_.size()) {
      body({first, *block_inputs_, *cached_[block]});
      continue;
    }
    // Only whole prefixes are kept, so that a block's place in the cache is its number.
    const bool keep = (block + 1) * block_bytes <= cache_bytes_;
    if (!keep) {
      ffn_.compute_hidden(*block_inputs_, *block_hidden_);
      body({first, *block_inputs_, *block_hidden_});
      continue;
    }
    std::unique_ptr<BackendMatrix> hidden = algebra().make_matrix();
    ffn_.compute_hidden(*block_inputs_, *hidden);
    cached_.push_back(std::move(hidden));
    body({first, *block_inputs_, *cached_.back()});
  }
}

}  // namespace moefy
