#include "layer_intake.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// Devices read every element type from multiples of this.
std::size_t aligned(std::size_t offset) {
  constexpr std::size_t kAlignment = 256;
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::unique_ptr<LayerIntake> LayerIntake::make(Backend& backend) {
  std::unique_ptr<LayerIntake> intake(new LayerIntake);
  for (Slot& slot : intake->slots_) {
    slot.bytes = backend.make_raw_bytes();
    if (!slot.bytes) return nullptr;
  }
  return intake;
}

LayerIntake::Slot& LayerIntake::next_slot(const LayerPayload& payload) {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  {
    const std::lock_guard lock(mutex_);
    slot.layer = payload.layer().index;
  }
  slot.parts.clear();
  slot.fingerprint.reset();
  std::size_t end = 0;
  for (const LayerPayload::Part& part : payload.parts()) {
    slot.parts.push_back({part.role, aligned(end)});
    end = slot.parts.back().offset + part.bytes;
  }
  slot.bytes->resize(end);
  return slot;
}

void LayerIntake::read(const LayerPayload& payload, const Checkpoint& checkpoint,
                       const std::stop_token& stop) {
  Slot& slot = next_slot(payload);
  LayerReader reader(checkpoint, payload.layer());
  for (const Part& part : slot.parts) {
    reader.read_raw(part.role, [&](const RawSource& next) {
      slot.bytes->receive(part.offset, role_bytes(payload.layer(), part.role),
                          [&](std::span<std::byte> block) {
                            if (stop.stop_requested()) throw Interrupted("stopped while reading");
                            next(block);
                          });
    });
  }
  slot.fingerprint = reader.fingerprint();
  slot.bytes->finish();
}

void LayerIntake::receive(const LayerPayload& payload, PayloadReader& reader, MemorySpace space) {
  Slot& slot = next_slot(payload);
  for (const Part& part : slot.parts) {
    const std::size_t size = role_bytes(payload.layer(), part.role);
    if (space == MemorySpace::device) {
      reader.read(slot.bytes->device_bytes().subspan(part.offset, size));
    } else {
      slot.bytes->receive(part.offset, size,
                          [&](std::span<std::byte> block) { reader.read(block); });
    }
  }
  slot.bytes->finish();
}

RowSource LayerIntake::source(const LayerInfo& layer) {
  const Slot& slot = slot_of(layer);
  return [&slot, &layer](FfnRole role, const RowsTarget& out) {
    const auto part = std::ranges::find(slot.parts, role, &Part::role);
    require(part != slot.parts.end(), "a method reads the matrices that it announced");
    const auto bad = slot.bytes->widen(part->offset, raw_shape(layer, role), out);
    if (bad) throw_not_finite(layer, role, bad->index, bad->value);
  };
}

std::optional<Digest> LayerIntake::fingerprint(const LayerInfo& layer) {
  return slot_of(layer).fingerprint;
}

const LayerIntake::Slot& LayerIntake::slot_of(const LayerInfo& layer) {
  const std::lock_guard lock(mutex_);
  const auto slot = std::ranges::find(slots_, layer.index, &Slot::layer);
  require(slot != slots_.end(), "the layer was brought in");
  return *slot;
}

}  // namespace moefy
