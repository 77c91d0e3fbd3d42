#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <stop_token>

#include "moefy/comm/bulk_link.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "task_thread.hpp"

namespace moefy {

/// Memory for payloads on their way: the same on the rank that sends and on those that receive.
using PieceBuffers = std::array<std::span<std::byte>, 2>;

/// Pieces of payloads on their way from the thread that communicates to the one that works: filled
/// in turn, read in the same order. What was read makes room and rings.
class PayloadWindow {
 public:
  PayloadWindow(BulkLink& link, const PieceBuffers& buffers, Doorbell& doorbell);

  // The thread that communicates:
  /// Where the next piece is received; empty while nothing is free.
  std::span<std::byte> free_buffer();
  /// The buffer that free_buffer() gave now holds `size` bytes of item `id`.
  void push(std::int64_t id, std::size_t size);
  /// Forgets what is there of an item that ended before it had read everything.
  void drop(std::int64_t id);

  // The thread that works:
  /// The next bytes of item `id`. Waits for them; Interrupted if stopped meanwhile.
  void read(std::int64_t id, std::span<std::byte> out, const std::stop_token& stop);

 private:
  struct Piece {
    std::span<std::byte> buffer;
    std::int64_t id = -1;
    std::size_t size = 0;
  };
  void pop();

  BulkLink& link_;
  Doorbell& doorbell_;
  std::mutex mutex_;
  std::condition_variable_any filled_;
  std::array<Piece, 2> pieces_;
  std::size_t first_ = 0;  ///< the piece that is read
  std::size_t count_ = 0;  ///< pieces with bytes
  std::size_t read_ = 0;   ///< bytes of the first that were read; of the thread that works
};

/// One item's bytes in a window.
class WindowReader final : public PayloadReader {
 public:
  WindowReader(PayloadWindow& window, std::int64_t id, std::uint64_t num_bytes,
               std::stop_token stop)
      : window_(window), id_(id), left_(num_bytes), stop_(std::move(stop)) {}
  void read(std::span<std::byte> out) override;

 private:
  PayloadWindow& window_;
  std::int64_t id_;
  std::uint64_t left_;
  std::stop_token stop_;
};

}  // namespace moefy
