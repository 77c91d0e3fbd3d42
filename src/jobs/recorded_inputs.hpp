#pragma once

#include <algorithm>

#include "moefy/model/calibration_tokens.hpp"
#include "moefy/store/recordings.hpp"

namespace moefy {

/// The first tokens of one layer's recorded inputs, read when they are asked for.
class RecordedInputs : public LayerInputs {
 public:
  /// Both must outlive the object.
  RecordedInputs(const Recordings& recordings, const RecordedLayer& layer, std::int64_t max_tokens)
      : recordings_(recordings),
        layer_(layer),
        num_tokens_(std::min(recordings.num_tokens(), static_cast<std::size_t>(max_tokens))) {}

  std::size_t num_tokens() const override { return num_tokens_; }
  MatrixView<const float> rows(std::size_t first, std::size_t count,
                               Matrix<float>& scratch) const override {
    scratch.resize(count, static_cast<std::size_t>(layer_.hidden_size));
    recordings_.read_inputs(layer_, first, scratch.view());
    return std::as_const(scratch).view();
  }

 private:
  const Recordings& recordings_;
  const RecordedLayer& layer_;
  std::size_t num_tokens_;
};

/// Hidden activations of recorded tokens that are kept rather than computed again, in bytes.
inline constexpr std::size_t kHiddenCacheBytes = std::size_t{256} << 20;

/// What was recorded of a layer. InputError if nothing was, or of a layer of another shape.
const RecordedLayer& recorded_layer(const Recordings& recordings, const LayerInfo& layer);
/// InputError unless the layer was recorded with these weights.
void check_recorded_weights(const Recordings& recordings, const RecordedLayer& recorded,
                            const Digest& fingerprint);

}  // namespace moefy
