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

void CalibrationTokens::for_each_inputs(const std::function<void(const Inputs&)>& body) {
  for (std::size_t first = 0; first < num_tokens(); first += kTokenBlock) {
    const std::size_t count = std::min(kTokenBlock, num_tokens() - first);
    block_inputs_->assign(inputs_.rows(first, count, input_scratch_));
    body({first, *block_inputs_});
  }
}

void CalibrationTokens::for_each_block(const std::function<void(const Block&)>& body) {
  const std::size_t block_bytes = kTokenBlock * layer().num_neurons() * sizeof(float);
  std::size_t block = 0;
  for_each_inputs([&](const Inputs& inputs) {
    const std::size_t number = block++;
    if (number < cached_.size()) return body({inputs, *cached_[number]});
    // Only whole prefixes are kept, so that a block's place in the cache is its number.
    if ((number + 1) * block_bytes > cache_bytes_) {
      ffn_.compute_hidden(inputs.inputs, *block_hidden_);
      return body({inputs, *block_hidden_});
    }
    std::unique_ptr<BackendMatrix> hidden = algebra().make_matrix();
    ffn_.compute_hidden(inputs.inputs, *hidden);
    cached_.push_back(std::move(hidden));
    body({inputs, *cached_.back()});
  });
}

}  // namespace moefy
