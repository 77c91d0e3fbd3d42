#include "queue_coordinator.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "companion.hpp"
#include "moefy/comm/waiting.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

QueueCoordinator::QueueCoordinator(Communicator& comm, BulkLink& link,
                                   std::span<const QueueItem> items,
                                   const QueueCallbacks& callbacks, const PieceBuffers& buffers,
                                   std::stop_token stop)
    : comm_(comm),
      link_(link),
      items_(items),
      callbacks_(callbacks),
      stop_(std::move(stop)),
      order_(heaviest_first(items)),
      peers_(static_cast<std::size_t>(comm.size())),
      watch_(comm, 1, comm.size()),
      worker_(comm, callbacks, doorbell_),
      reader_(doorbell_),
      committer_(doorbell_) {
  for (const QueueItem& item : items) {
    payload_bytes_[item.id] = item.payload_bytes;
    any_payload_ |= item.payload_bytes > 0;
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].buffer = buffers[i];
  statistics_.items_by_rank.resize(peers_.size());
  statistics_.busy_seconds_by_rank.resize(peers_.size());
}

std::optional<RankError> QueueCoordinator::run() {
  const std::stop_callback wake(stop_, [this] { doorbell_.ring(); });
  const CompanionBell companion_bell(callbacks_.companion, doorbell_);
  Backoff backoff;
  while (!all_gone()) {
    notice_stop();
    bool moved = handle_messages();
    moved |= finish_sends();
    moved |= finish_load();
    moved |= finish_own_work();
    while (dispatch()) moved = true;
    while (load_next()) moved = true;
    moved |= commit_next();
    moved |= drive(callbacks_.companion);
    refuse_requests();
    if (!ended_ && nothing_under_way()) say_end();
    watch_.tick();
    if (all_gone()) break;
    if (moved) backoff.reset();
    // Alone, everything that can happen rings; messages of other ranks do not.
    const bool alone = comm_.size() == 1 && callbacks_.companion == nullptr;
    alone ? doorbell_.wait()
          : doorbell_.wait(next_pause(backoff, callbacks_.companion, longest_pause()));
  }
  comm_.flush();
  return error_;
}

/// Pieces travel only while somebody looks.
std::chrono::microseconds QueueCoordinator::longest_pause() const {
  return any_payload_ ? Backoff::kLongest : worker_.longest_pause();
}

QueueCoordinator::Slot* QueueCoordinator::find(SlotState state) {
  for (Slot& slot : slots_) {
    if (slot.state == state) return &slot;
  }
  return nullptr;
}

std::size_t QueueCoordinator::items_left() const { return order_.size() - next_; }

bool QueueCoordinator::handle_messages() {
  bool any = false;
  while (auto message = comm_.poll()) {
    watch_.heard(message->source);
    handle(message->source, decode_queue_message(*message));
    any = true;
  }
  return any;
}

void QueueCoordinator::handle(int source, QueueMessage message) {
  Peer& peer = peers_[static_cast<std::size_t>(source)];
  switch (message.kind) {
    case QueueKind::request:
      waiting_.push_back(source);
      return;
    case QueueKind::fetch:
      fetches_.push_back({source, message.id, message.offset});
      return;
    case QueueKind::result:
      --peer.in_hand;
      finished_.push_back({message.id, source, message.seconds, std::move(message.bytes)});
      return;
    case QueueKind::failed:
      --peer.in_hand;
      record_error({message.code, to_text(message.bytes), source});
      return;
    case QueueKind::stop_wish:
      record_error({ExitCode::interrupted, {}, source});
      return;
    case QueueKind::drained:
      peer.drained = true;
      return;
    case QueueKind::bye:
      peer.gone = true;
      watch_.forget(source);
      return;
    case QueueKind::beat:
      return;
    default:
      throw InternalError("rank 0 received a message that is meant for a worker");
  }
}

bool QueueCoordinator::finish_sends() {
  bool any = false;
  for (Peer& peer : peers_) {
    if (!peer.sending || !link_.done(*peer.sending)) continue;
    peer.sending_from->state = SlotState::free;
    peer.sending.reset();
    any = true;
  }
  return any;
}

bool QueueCoordinator::finish_load() {
  const auto outcome = reader_.take_outcome();
  if (!outcome) return false;
  const Loading loaded = *loading_;
  loading_.reset();
  if (*outcome) record_error(error_of(comm_, *outcome));
  send_piece(loaded.rank, loaded.piece, *loaded.slot);
  return true;
}

bool QueueCoordinator::finish_own_work() {
  bool any = false;
  while (auto outcome = worker_.take_outcome()) {
    any = true;
    if (outcome->error) {
      record_error(*outcome->error);
    } else {
      finished_.push_back({outcome->id, 0, outcome->seconds, std::move(outcome->result)});
    }
  }
  return any;
}

void QueueCoordinator::notice_stop() {
  if (!stopping_ && stop_.stop_requested()) record_error({ExitCode::interrupted, {}, 0});
}

/// Loads a piece that was asked for. Every fetch gets an answer, as long as it asked for: its
/// receive is posted and must not stay open. After a stop nobody reads it, so nothing is loaded.
bool QueueCoordinator::load_next() {
  if (loading_) return false;
  const auto next = std::find_if(fetches_.begin(), fetches_.end(), [this](const Fetch& fetch) {
    return !peers_[static_cast<std::size_t>(fetch.rank)].sending;
  });
  if (next == fetches_.end()) return false;
  Slot* slot = find(SlotState::free);
  if (!slot) return false;
  const Fetch fetch = *next;
  fetches_.erase(next);
  const std::uint64_t left = payload_bytes_.at(fetch.id) - fetch.offset;
  const auto piece = slot->buffer.first(std::min<std::uint64_t>(slot->buffer.size(), left));
  if (stopping_) {
    send_piece(fetch.rank, piece, *slot);
    return true;
  }
  slot->state = SlotState::loading;
  loading_ = Loading{fetch.rank, piece, slot};
  reader_.start([this, fetch, piece] { callbacks_.load(fetch.id, fetch.offset, piece); });
  return true;
}

/// Who gets the next item: ranks with nothing to do, then this one, then those that fetch ahead,
/// and this one if it does.
/// Near the end the last items wait for ranks that become idle.
std::optional<int> QueueCoordinator::choose_rank() {
  const auto ready = [this](int rank, bool idle) {
    const Peer& peer = peers_[static_cast<std::size_t>(rank)];
    return (peer.in_hand == 0) == idle;
  };
  const auto first = [&](bool idle) {
    return std::find_if(waiting_.begin(), waiting_.end(),
                        [&](int rank) { return ready(rank, idle); });
  };
  auto chosen = first(true);
  if (chosen == waiting_.end() && !worker_.busy()) return 0;
  const bool ahead = items_left() >= peers_.size();
  if (chosen == waiting_.end() && ahead) chosen = first(false);
  if (chosen == waiting_.end() && ahead && worker_.has_room()) return 0;
  if (chosen == waiting_.end()) return std::nullopt;
  const int rank = *chosen;
  waiting_.erase(chosen);
  return rank;
}

bool QueueCoordinator::dispatch() {
  if (stopping_ || items_left() == 0) return false;
  const std::optional<int> rank = choose_rank();
  if (!rank) return false;
  const QueueItem& item = items_[order_[next_++]];
  if (*rank == 0) {
    worker_.start(item.id, nullptr);
  } else {
    ++peers_[static_cast<std::size_t>(*rank)].in_hand;
    post(comm_, *rank, {QueueKind::assign, item.id});
  }
  return true;
}

void QueueCoordinator::send_piece(int rank, std::span<const std::byte> piece, Slot& slot) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  post(comm_, rank, {QueueKind::piece});
  peer.sending = link_.send_from(rank, piece);
  peer.sending_from = &slot;
  slot.state = SlotState::sending;
  statistics_.payload_bytes_sent += piece.size();
}

void QueueCoordinator::refuse_requests() {
  if (!stopping_ && items_left() > 0) return;
  for (const int rank : waiting_) post(comm_, rank, {QueueKind::no_more});
  waiting_.clear();
}

/// Results become durable one after another, on a thread of their own: ranks wait for work, not for
/// the disk.
bool QueueCoordinator::commit_next() {
  bool any = false;
  if (const auto outcome = committer_.take_outcome()) {
    if (*outcome)
      record_error(error_of(comm_, *outcome));
    else
      ++committed_;
    any = true;
  }
  if (committer_.busy() || finished_.empty()) return any;
  committing_ = std::move(finished_.front());
  finished_.pop_front();
  const auto rank = static_cast<std::size_t>(committing_.rank);
  ++statistics_.items_by_rank[rank];
  statistics_.busy_seconds_by_rank[rank] += committing_.seconds;
  committer_.start([this] {
    callbacks_.commit(committing_.id, committing_.rank, std::move(committing_.result));
  });
  return true;
}

/// The first real error counts; interruptions follow from it, or are all there is. After the end
/// only a stop request can still come, and it must not tell rank 0 something else than the others.
void QueueCoordinator::record_error(RankError error) {
  if (ended_) return;
  const bool first =
      !error_ || (error_->code == ExitCode::interrupted && error.code != ExitCode::interrupted);
  if (first) error_ = std::move(error);
  begin_stop();
}

void QueueCoordinator::begin_stop() {
  if (stopping_) return;
  stopping_ = true;
  worker_.request_stop();
  for (int rank = 1; rank < comm_.size(); ++rank) post(comm_, rank, {QueueKind::stop});
}

bool QueueCoordinator::nothing_under_way() const {
  if (!stopping_ && items_left() > 0) return false;
  if (worker_.busy() || reader_.busy() || committer_.busy() || !finished_.empty()) return false;
  return std::all_of(peers_.begin() + 1, peers_.end(),
                     [](const Peer& peer) { return peer.drained && !peer.sending; });
}

void QueueCoordinator::say_end() {
  ended_ = true;
  if (error_ && error_->code == ExitCode::interrupted) {
    if (committed_ == items_.size()) {
      error_.reset();
    } else {
      error_->message = fmt::format("stopped with {} of {} items done{}", committed_, items_.size(),
                                    error_->message.empty() ? "" : ": " + error_->message);
    }
  }
  watch_.stop_beats();
  QueueMessage end{QueueKind::end};
  if (error_) {
    end.code = error_->code;
    end.bytes = to_bytes(error_->message);
  }
  for (int rank = 1; rank < comm_.size(); ++rank) post(comm_, rank, end);
}

bool QueueCoordinator::all_gone() const {
  return ended_ &&
         std::all_of(peers_.begin() + 1, peers_.end(), [](const Peer& peer) { return peer.gone; });
}

}  // namespace moefy
