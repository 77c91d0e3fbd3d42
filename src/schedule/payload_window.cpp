#include "payload_window.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

PayloadWindow::PayloadWindow(BulkLink& link, const PieceBuffers& buffers, Doorbell& doorbell)
    : link_(link), doorbell_(doorbell) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) pieces_[i].buffer = buffers[i];
}

std::span<std::byte> PayloadWindow::free_buffer() {
  const std::lock_guard lock(mutex_);
  if (count_ == pieces_.size()) return {};
  return pieces_[(first_ + count_) % pieces_.size()].buffer;
}

void PayloadWindow::push(std::int64_t id, std::size_t size) {
  {
    const std::lock_guard lock(mutex_);
    Piece& piece = pieces_[(first_ + count_) % pieces_.size()];
    piece.id = id;
    piece.size = size;
    ++count_;
  }
  filled_.notify_one();
}

void PayloadWindow::drop(std::int64_t id) {
  const std::lock_guard lock(mutex_);
  while (count_ > 0 && pieces_[first_].id == id) pop();
}

void PayloadWindow::pop() {
  first_ = (first_ + 1) % pieces_.size();
  --count_;
  read_ = 0;
}

void PayloadWindow::read(std::int64_t id, std::span<std::byte> out, const std::stop_token& stop) {
  while (!out.empty()) {
    std::unique_lock lock(mutex_);
    if (!filled_.wait(lock, stop, [this] { return count_ > 0; })) throw Interrupted("stopped");
    const Piece piece = pieces_[first_];
    lock.unlock();  // nobody else touches the first piece while an item is in work
    require(piece.id == id, "pieces arrive in the order in which items are worked on");
    const std::size_t part = std::min(out.size(), piece.size - read_);
    link_.copy_out(std::span<const std::byte>(piece.buffer).subspan(read_, part), out.first(part));
    out = out.subspan(part);
    read_ += part;
    if (read_ < piece.size) continue;
    lock.lock();
    pop();
    lock.unlock();
    doorbell_.ring();
  }
}

void WindowReader::read(std::span<std::byte> out) {
  require(out.size() <= left_, "a payload is not read beyond its end");
  left_ -= out.size();
  window_.read(id_, out, stop_);
}

}  // namespace moefy
