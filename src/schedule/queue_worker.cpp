#include "queue_worker.hpp"

#include <algorithm>

#include "companion.hpp"
#include "moefy/comm/waiting.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

QueueWorker::QueueWorker(Communicator& comm, BulkLink& link, std::span<const QueueItem> items,
                         const QueueCallbacks& callbacks, const PieceBuffers& buffers,
                         std::stop_token stop)
    : comm_(comm),
      link_(link),
      companion_(callbacks.companion),
      stop_(std::move(stop)),
      window_(link, buffers, doorbell_),
      watch_(comm, 0, 1),
      worker_(comm, callbacks, doorbell_) {
  for (const QueueItem& item : items) payload_bytes_[item.id] = item.payload_bytes;
}

std::optional<RankError> QueueWorker::run() {
  const std::stop_callback wake(stop_, [this] { doorbell_.ring(); });
  const CompanionBell companion_bell(companion_, doorbell_);
  Backoff backoff;
  while (!ended_) {
    notice_stop();
    bool moved = handle_messages();
    moved |= finish_fetch();
    moved |= report_outcome();
    moved |= drive(companion_);
    start_work();
    ask();
    fetch();
    tell_drained();
    watch_.tick();
    if (moved) backoff.reset();
    // Pieces on their way are waited for.
    const auto longest = fetch_ ? Backoff::kLongest : worker_.longest_pause();
    if (!ended_) doorbell_.wait(next_pause(backoff, companion_, longest));
  }
  comm_.flush();
  return error_;
}

QueueWorker::Slot* QueueWorker::find(SlotState state) {
  for (Slot& slot : slots_) {
    if (slot.state == state) return &slot;
  }
  return nullptr;
}

void QueueWorker::ask() {
  if (find(SlotState::asked) || no_more_ || stopping_) return;
  Slot* slot = find(SlotState::empty);
  if (!slot) return;
  slot->state = SlotState::asked;
  post(comm_, 0, {QueueKind::request});
}

bool QueueWorker::handle_messages() {
  bool any = false;
  while (const auto message = comm_.poll()) {
    watch_.heard(message->source);
    handle(decode_queue_message(*message));
    any = true;
  }
  return any;
}

void QueueWorker::handle(const QueueMessage& message) {
  Slot* asked = find(SlotState::asked);
  switch (message.kind) {
    case QueueKind::assign:
      require(asked != nullptr, "an assignment answers a request");
      *asked = {SlotState::ready, message.id, payload_bytes_.at(message.id), 0, next_turn_++};
      return;
    case QueueKind::no_more:
      require(asked != nullptr, "'no more' answers a request");
      *asked = {};
      no_more_ = true;
      return;
    case QueueKind::piece:
      require(fetch_.has_value(), "a piece answers a fetch");
      fetch_->answered = true;
      return;
    case QueueKind::stop:
      stop_working();
      return;
    case QueueKind::end:
      if (message.code != ExitCode::done) error_ = {message.code, to_text(message.bytes), 0};
      watch_.forget(0);
      post(comm_, 0, {QueueKind::bye});
      ended_ = true;
      return;
    case QueueKind::beat:
      return;
    default:
      throw InternalError("a worker received a message that is meant for rank 0");
  }
}

/// Pieces arrive in the order in which items are worked on.
QueueWorker::Slot* QueueWorker::unfetched() {
  Slot* first = nullptr;
  for (Slot& slot : slots_) {
    if (slot.fetched < slot.payload_bytes && (!first || slot.turn < first->turn)) first = &slot;
  }
  return first;
}

void QueueWorker::fetch() {
  if (fetch_ || stopping_) return;
  Slot* slot = unfetched();
  if (!slot) return;
  const std::span<std::byte> buffer = window_.free_buffer();
  if (buffer.empty()) return;
  const auto size = static_cast<std::size_t>(
      std::min<std::uint64_t>(buffer.size(), slot->payload_bytes - slot->fetched));
  fetch_ = Fetch{slot->id, size, link_.receive_into(0, buffer.first(size)), false};
  QueueMessage message{QueueKind::fetch, slot->id};
  message.offset = slot->fetched;
  post(comm_, 0, message);
  slot->fetched += size;
}

/// Once rank 0 stops, a piece may hold anything; `stop` comes before the answer that does.
bool QueueWorker::finish_fetch() {
  if (!fetch_) return false;
  if (fetch_->receive && link_.done(*fetch_->receive)) fetch_->receive.reset();
  if (!fetch_->answered || fetch_->receive) return false;
  const bool wanted = std::any_of(slots_.begin(), slots_.end(), [this](const Slot& slot) {
    return slot.state != SlotState::empty && slot.id == fetch_->id;
  });
  if (wanted && !stopping_) window_.push(fetch_->id, fetch_->size);
  fetch_.reset();
  return true;
}

bool QueueWorker::report_outcome() {
  bool any = false;
  while (auto outcome = worker_.take_outcome()) {
    any = true;
    *std::ranges::find(slots_, outcome->id, &Slot::id) = {};
    window_.drop(outcome->id);
    if (outcome->error) {
      post(comm_, 0,
           {QueueKind::failed, outcome->id, outcome->error->code, outcome->seconds,
            to_bytes(outcome->error->message)});
      stop_working();
    } else {
      post(comm_, 0,
           {QueueKind::result, outcome->id, ExitCode::done, outcome->seconds,
            std::move(outcome->result)});
    }
  }
  return any;
}

void QueueWorker::notice_stop() {
  if (wished_ || !stop_.stop_requested()) return;
  wished_ = true;
  post(comm_, 0, {QueueKind::stop_wish});
  stop_working();
}

void QueueWorker::stop_working() {
  stopping_ = true;
  worker_.request_stop();
}

void QueueWorker::start_work() {
  Slot* slot = find(SlotState::ready);
  if (!slot) return;
  if (stopping_) {
    *slot = {};
  } else if (worker_.has_room()) {
    slot->state = SlotState::working;
    if (slot->payload_bytes > 0) {
      slot->reader = std::make_unique<WindowReader>(window_, slot->id, slot->payload_bytes,
                                                    worker_.stop_token());
    }
    worker_.start(slot->id, slot->reader.get());
  }
}

void QueueWorker::tell_drained() {
  if (drained_ || !(no_more_ || stopping_)) return;
  if (fetch_ || find(SlotState::asked) || find(SlotState::ready) || worker_.busy()) return;
  drained_ = true;
  post(comm_, 0, {QueueKind::drained});
}

}  // namespace moefy
