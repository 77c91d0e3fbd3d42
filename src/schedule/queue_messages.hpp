#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/comm/communicator.hpp"

namespace moefy {

/// What ranks tell rank 0 (w) and rank 0 tells them (0) while a queue runs.
enum class QueueKind : std::uint8_t {
  request,    ///< w: give me an item
  assign,     ///< 0: answer: item `id`
  no_more,    ///< 0: answer: nothing left
  fetch,      ///< w: the receive is posted, send the piece of item `id` that begins at `offset`
  piece,      ///< 0: answer: it comes as bulk (after `stop`: an empty one)
  result,     ///< w: `bytes` of item `id`, which took `seconds`
  failed,     ///< w: item `id` ended with error `code` and text `bytes`
  stop_wish,  ///< w: this rank was asked to stop
  stop,       ///< 0: leave at the next safe point, do not ask again
  drained,    ///< w: nothing in hand, and will not ask again
  end,        ///< 0: all are drained; `code` and text `bytes` if there was an error
  bye,        ///< w: the last message
  beat,       ///< both: I am alive
};

struct QueueMessage {
  QueueKind kind = QueueKind::beat;
  std::int64_t id = -1;
  ExitCode code = ExitCode::done;
  double seconds = 0;
  std::vector<std::byte> bytes = {};
  std::uint64_t offset = 0;
};

/// One tag for all of them, so that they stay in order.
constexpr int kQueueTag = 1;

void post(Communicator& comm, int target, const QueueMessage& message);
/// InternalError if it is none.
QueueMessage decode_queue_message(const Communicator::Message& message);

}  // namespace moefy
