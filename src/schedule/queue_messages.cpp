#include "queue_messages.hpp"

#include <algorithm>
#include <cstring>

namespace moefy {
namespace {

/// The fixed part of a message. Ranks run the same program on the same kind of machine.
struct Head {
  std::int64_t id = -1;
  double seconds = 0;
  std::uint64_t offset = 0;
  std::int32_t code = 0;
  std::uint32_t kind = 0;
};

}  // namespace

void post(Communicator& comm, int target, const QueueMessage& message) {
  const Head head{message.id, message.seconds, message.offset,
                  static_cast<std::int32_t>(message.code),
                  static_cast<std::uint32_t>(message.kind)};
  std::vector<std::byte> bytes(sizeof head + message.bytes.size());
  std::memcpy(bytes.data(), &head, sizeof head);
  std::copy(message.bytes.begin(), message.bytes.end(), bytes.begin() + sizeof head);
  comm.post(target, kQueueTag, std::move(bytes));
}

QueueMessage decode_queue_message(const Communicator::Message& message) {
  Head head;
  require(message.tag == kQueueTag && message.bytes.size() >= sizeof head,
          "only messages of the queue arrive while it runs");
  std::memcpy(&head, message.bytes.data(), sizeof head);
  return {static_cast<QueueKind>(head.kind),
          head.id,
          static_cast<ExitCode>(head.code),
          head.seconds,
          std::vector<std::byte>(message.bytes.begin() + sizeof head, message.bytes.end()),
          head.offset};
}

}  // namespace moefy
