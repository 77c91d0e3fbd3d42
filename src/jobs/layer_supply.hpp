#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>

#include "layer_feed.hpp"
#include "layer_intake.hpp"

namespace moefy {

/// The weights of the layers that a rank works on, and what rank 0 sends of them to the others:
/// from files or messages, through the host or ahead of the work into a device.
class LayerSupply {
 public:
  /// A layer in work.
  struct OpenLayer {
    RowSource source;  ///< for rows of make_rows()
    /// Nothing if rank 0 sent the layer, which then knows it. Reads what was not read; last.
    std::function<std::optional<Digest>()> fingerprint;
  };

  /// `checkpoint`: null on a rank that cannot read the files. `on_host`: fp32 rows are wanted in
  /// host memory, wherever the backend has its own.
  LayerSupply(const SplitConfig& config, Backend& backend, const Checkpoint* checkpoint,
              bool on_host);

  /// Layers must outlive this.
  void add(const LayerInfo& layer);
  /// Bytes that travel if rank 0 sends the layer.
  std::uint64_t num_bytes(std::int64_t layer) const { return payloads_.at(layer).num_bytes(); }
  std::unique_ptr<RowMatrix> make_rows();
  /// Whether layers are brought into a device before the work.
  bool is_ahead() const { return intake_ != nullptr; }

  /// The parts of a queue's callbacks of the same names. `space`: what the link delivers to.
  void load(std::int64_t layer, std::uint64_t offset, std::span<std::byte> piece);
  void prepare(std::int64_t layer, PayloadReader* payload, MemorySpace space,
               const std::stop_token& stop);
  /// For `work`, with the payload that it gets.
  OpenLayer open(std::int64_t layer, PayloadReader* payload);

  /// Rank 0: of a layer that it has sent.
  Digest sent_fingerprint(std::int64_t layer);

 private:
  const SplitConfig& config_;
  Backend& backend_;
  const Checkpoint* checkpoint_;
  std::unique_ptr<LayerIntake> intake_;
  std::map<std::int64_t, LayerPayload> payloads_;
  AlignedBuffer<std::byte> raw_;
  std::mutex mutex_;
  std::map<std::int64_t, Digest> sent_;
};

}  // namespace moefy
