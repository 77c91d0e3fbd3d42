#include "queue_worker.hpp"

#include "moefy/comm/waiting.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

QueueWorker::QueueWorker(Communicator& comm, std::span<const QueueItem> items,
                         const QueueCallbacks& callbacks, Buffers& buffers, std::stop_token stop)
    : comm_(comm),
      with_payloads_(buffers[0].size() > 0),
      stop_(std::move(stop)),
      watch_(comm, 0, 1),
      worker_(comm, callbacks, doorbell_) {
  for (const QueueItem& item : items) payload_bytes_[item.id] = item.payload_bytes;
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].buffer = buffers[i].span();
}

std::optional<RankError> QueueWorker::run() {
  const std::stop_callback wake(stop_, [this] { doorbell_.ring(); });
  Backoff backoff;
  while (!ended_) {
    notice_stop();
    bool moved = handle_messages();
    moved |= finish_request();
    moved |= report_outcome();
    start_work();
    ask();
    tell_drained();
    watch_.tick();
    if (moved) backoff.reset();
    if (!ended_) doorbell_.wait(backoff.next());
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
  if (request_ || no_more_ || stopping_) return;
  Slot* slot = find(SlotState::empty);
  if (!slot) return;
  request_ = Request{slot, std::nullopt, false};
  if (with_payloads_) request_->receive = comm_.receive_into(0, slot->buffer);
  slot->state = SlotState::asked;
  slot->id = -1;
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
  switch (message.kind) {
    case QueueKind::assign:
      require(request_.has_value(), "an assignment answers a request");
      request_->slot->id = message.id;
      request_->answered = true;
      return;
    case QueueKind::no_more:
      require(request_.has_value(), "'no more' answers a request");
      request_->answered = true;
      no_more_ = true;
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

bool QueueWorker::finish_request() {
  if (!request_) return false;
  if (request_->receive && comm_.bulk_done(*request_->receive)) request_->receive.reset();
  if (!request_->answered || request_->receive) return false;
  Slot& slot = *request_->slot;
  slot.state = slot.id >= 0 ? SlotState::ready : SlotState::empty;
  request_.reset();
  return true;
}

bool QueueWorker::report_outcome() {
  auto outcome = worker_.take_outcome();
  if (!outcome) return false;
  find(SlotState::working)->state = SlotState::empty;
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
  return true;
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
    slot->state = SlotState::empty;
  } else if (!worker_.busy()) {
    slot->state = SlotState::working;
    worker_.start(slot->id, slot->buffer.first(payload_bytes_.at(slot->id)));
  }
}

void QueueWorker::tell_drained() {
  if (drained_ || request_ || !(no_more_ || stopping_)) return;
  if (worker_.busy() || find(SlotState::ready)) return;
  drained_ = true;
  post(comm_, 0, {QueueKind::drained});
}

}  // namespace moefy
