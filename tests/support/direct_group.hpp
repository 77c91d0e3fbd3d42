#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "moefy/core/rank_group.hpp"

namespace moefy::test {

/// A group whose other members carry out every message at once, in this process.
class DirectGroup final : public RankGroup {
 public:
  explicit DirectGroup(const std::vector<OrderHandler>& others) {
    for (std::size_t m = 0; m < others.size(); ++m)
      servers_.emplace_back(others[m], "[member " + std::to_string(m + 1) + "] ");
  }
  std::size_t size() const override { return servers_.size() + 1; }
  void send(std::size_t member, std::vector<std::byte> message) override {
    if (auto answer = servers_.at(member - 1).handle(std::move(message)))
      answers_[member].push_back(std::move(*answer));
  }
  std::vector<std::byte> receive(std::size_t member) override {
    std::vector<std::byte> answer = std::move(answers_.at(member).front());
    answers_[member].pop_front();
    return answer;
  }
  /// What has not come by now never will.
  std::optional<Arrival> receive_any(std::span<const std::size_t> members,
                                     std::chrono::microseconds /*longest*/) override {
    for (const std::size_t member : members) {
      if (!answers_[member].empty()) return Arrival{member, receive(member)};
    }
    return std::nullopt;
  }

 private:
  std::vector<OrderServer> servers_;
  std::map<std::size_t, std::deque<std::vector<std::byte>>> answers_;
};

}  // namespace moefy::test
