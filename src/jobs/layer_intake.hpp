#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "layer_feed.hpp"
#include "moefy/backend/backend.hpp"

namespace moefy {

/// Brings the weights of layers to a device as they lie in the file, one layer ahead of the work
/// (the `prepare` of a queue), and widens them there.
class LayerIntake {
 public:
  /// Null if the backend takes its rows from the host.
  static std::unique_ptr<LayerIntake> make(Backend& backend);

  /// Reads the layer of `payload` from the files, and its fingerprint. Throws InputError, IoError,
  /// DeviceError, Interrupted.
  void read(const LayerPayload& payload, const Checkpoint& checkpoint, const std::stop_token& stop);
  /// Takes it from rank 0, whose link delivers to memory of `space`.
  void receive(const LayerPayload& payload, PayloadReader& reader, MemorySpace space);

  /// fp32 rows of a layer that was brought in: this one or the one before.
  RowSource source(const LayerInfo& layer);
  /// Nothing if the layer came from rank 0.
  std::optional<Digest> fingerprint(const LayerInfo& layer);

 private:
  struct Part {
    FfnRole role;
    std::size_t offset;
  };
  /// One layer: while it is in work, the next comes into the other.
  struct Slot {
    std::unique_ptr<RawBytes> bytes;
    std::int64_t layer = -1;
    std::vector<Part> parts;
    std::optional<Digest> fingerprint;
  };
  LayerIntake() = default;
  /// The slot whose layer is not in work, made ready for that of `payload`.
  Slot& next_slot(const LayerPayload& payload);
  const Slot& slot_of(const LayerInfo& layer);

  std::mutex mutex_;  ///< of the numbers of layers in slots_
  std::array<Slot, 2> slots_;
  std::size_t next_ = 0;
};

}  // namespace moefy
