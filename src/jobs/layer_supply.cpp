#include "layer_supply.hpp"

namespace moefy {

LayerSupply::LayerSupply(const SplitConfig& config, Backend& backend, const Checkpoint* checkpoint,
                         bool on_host)
    : config_(config),
      backend_(backend),
      checkpoint_(checkpoint),
      intake_(on_host ? nullptr : LayerIntake::make(backend)) {}

void LayerSupply::add(const LayerInfo& layer) {
  payloads_.emplace(layer.index, LayerPayload(config_, layer, is_ahead()));
}

std::unique_ptr<RowMatrix> LayerSupply::make_rows() {
  return intake_ ? backend_.make_rows() : make_host_rows(backend_.threads());
}

void LayerSupply::load(std::int64_t layer, std::uint64_t offset, std::span<std::byte> piece) {
  const LayerPayload& payload = payloads_.at(layer);
  payload.load(*checkpoint_, offset, piece);
  if (offset + piece.size() < payload.num_bytes()) return;
  const Digest fingerprint = layer_fingerprint(*checkpoint_, payload.layer());
  const std::lock_guard lock(mutex_);
  sent_[layer] = fingerprint;
}

void LayerSupply::prepare(std::int64_t layer, PayloadReader* payload, MemorySpace space,
                          const std::stop_token& stop) {
  if (payload) {
    intake_->receive(payloads_.at(layer), *payload, space);
  } else {
    intake_->read(payloads_.at(layer), *checkpoint_, stop);
  }
}

LayerSupply::OpenLayer LayerSupply::open(std::int64_t layer, PayloadReader* payload) {
  const LayerPayload& parts = payloads_.at(layer);
  if (intake_) {
    return {intake_->source(parts.layer()),
            [this, &parts] { return intake_->fingerprint(parts.layer()); }};
  }
  if (payload) return {parts.source(*payload, raw_), [] { return std::nullopt; }};
  const auto reader = std::make_shared<LayerReader>(*checkpoint_, parts.layer());
  return {
      [this, reader](FfnRole role, MatrixView<float> out) { reader->read_rows(role, raw_, out); },
      [reader] { return reader->fingerprint(); }};
}

Digest LayerSupply::sent_fingerprint(std::int64_t layer) {
  const std::lock_guard lock(mutex_);
  return sent_.at(layer);
}

}  // namespace moefy
