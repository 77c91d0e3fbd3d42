#include "abort_message.hpp"
#include "moefy/core/host.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>

namespace moefy {

void print_last_words(std::optional<int> rank, ExitCode code, const std::string& message) {
  const std::string who = rank ? fmt::format("[rank {} on {}] ", *rank, host_name()) : "";
  const std::string text = fmt::format("moefy: {}{}\nmoefy: exit {} ({})\n", who, message,
                                       static_cast<int>(code), reason(code));
  // Nothing is left to be done about a failing stderr.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace moefy
