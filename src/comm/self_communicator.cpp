#include <deque>
#include <utility>

#include "moefy/comm/communicator.hpp"

#include "abort_message.hpp"

namespace moefy {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

  void post(int target, int tag, std::vector<std::byte> bytes) override {
    require(target == 0 && tag >= 0 && tag <= kMaxTag, "message to rank 0 with a valid tag");
    arrived_.push_back({0, tag, std::move(bytes)});
  }
  std::optional<Message> poll() override {
    if (arrived_.empty()) return std::nullopt;
    Message message = std::move(arrived_.front());
    arrived_.pop_front();
    return message;
  }

  std::size_t receive_into(int, std::span<std::byte>) override { no_peer(); }
  std::size_t send_from(int, std::span<const std::byte>) override { no_peer(); }
  bool bulk_done(std::size_t) override { no_peer(); }
  void flush() override {}

  void barrier() override {}
  void broadcast(std::vector<std::byte>&, int root) override {
    require(root == 0, "root is rank 0");
  }
  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> bytes, int root) override {
    require(root == 0, "root is rank 0");
    return {std::vector<std::byte>(bytes.begin(), bytes.end())};
  }
  std::unique_ptr<Communicator> split(int) override { return std::make_unique<SelfCommunicator>(); }
  [[noreturn]] void abort(ExitCode code, const std::string& message) override {
    print_last_words(std::nullopt, code, message);
    std::_Exit(static_cast<int>(code));
  }

  std::chrono::milliseconds timeout() const override { return std::chrono::milliseconds::max(); }

 private:
  [[noreturn]] static void no_peer() {
    throw InternalError("bulk transfer asked for, but there is only one rank");
  }
  std::deque<Message> arrived_;
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace moefy
