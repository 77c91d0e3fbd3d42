#include "recorded_inputs.hpp"

#include <fmt/format.h>

#include "moefy/core/error.hpp"

namespace moefy {

const RecordedLayer& recorded_layer(const Recordings& recordings, const LayerInfo& layer) {
  const RecordedLayer* found = recordings.find(layer.index);
  if (!found)
    throw InputError(fmt::format("{}: layer {} ({}) was not recorded", recordings.file(),
                                 layer.index, layer.name));
  if (found->num_neurons != layer.num_neurons || found->hidden_size != layer.hidden_size)
    throw InputError(fmt::format(
        "{}: layer {} ({}) has {} neurons of width {}, that of the model {} of width {}: these are "
        "recordings of another model",
        recordings.file(), layer.index, found->name, found->num_neurons, found->hidden_size,
        layer.num_neurons, layer.hidden_size));
  return *found;
}

void check_recorded_weights(const Recordings& recordings, const RecordedLayer& recorded,
                            const Digest& fingerprint) {
  if (recorded.fingerprint == fingerprint) return;
  throw InputError(fmt::format(
      "{}: layer {} was recorded with other weights (fingerprint {}, the model has {}); record "
      "again",
      recordings.file(), recorded.layer_index, recorded.fingerprint.hex(), fingerprint.hex()));
}

}  // namespace moefy
