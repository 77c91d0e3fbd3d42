#include "process_identity.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "moefy/core/host.hpp"

namespace moefy {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string link_target(const char* path) {
  std::array<char, 256> target{};
  const ssize_t length = readlink(path, target.data(), target.size());
  return length > 0 ? std::string(target.data(), static_cast<std::size_t>(length)) : std::string();
}

struct ProcessState {
  char state = 'X';
  std::uint64_t start = 0;
};

/// State and start time (fields 3 and 22 of /proc/PID/stat); empty if there is no such process. The
/// name in field 2 may hold anything, so fields are counted from its last parenthesis.
std::optional<ProcessState> process_state(std::int64_t pid) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", pid));
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  ProcessState state;
  fields >> state.state;
  constexpr int kFieldsBetween = 18;
  std::string skipped;
  for (int i = 0; i < kFieldsBetween; ++i) fields >> skipped;
  fields >> state.start;
  if (!fields) return std::nullopt;
  return state;
}

}  // namespace

ProcessIdentity ProcessIdentity::own() {
  ProcessIdentity self;
  self.host = host_name();
  self.boot =
      first_line("/proc/sys/kernel/random/boot_id") + " " + link_target("/proc/self/ns/pid");
  self.pid = getpid();
  if (const auto state = process_state(self.pid)) self.start = state->start;
  return self;
}

std::optional<ProcessIdentity> ProcessIdentity::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  try {
    ProcessIdentity identity;
    json.at("host").get_to(identity.host);
    json.at("boot").get_to(identity.boot);
    json.at("pid").get_to(identity.pid);
    json.at("start").get_to(identity.start);
    return identity;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

std::string ProcessIdentity::text() const {
  const nlohmann::json json{{"host", host}, {"boot", boot}, {"pid", pid}, {"start", start}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string ProcessIdentity::describe() const { return fmt::format("process {} on {}", pid, host); }

bool ProcessIdentity::same_host_as(const ProcessIdentity& other) const {
  return host == other.host && boot == other.boot;
}

bool ProcessIdentity::is_running() const {
  const auto state = process_state(pid);
  return state && state->start == start && state->state != 'Z' && state->state != 'X';
}

}  // namespace moefy
