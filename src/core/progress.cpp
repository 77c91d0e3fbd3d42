#include "moefy/core/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace moefy {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string bar(double share) {
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(std::lround(share * kWidth));
  return std::string(static_cast<std::size_t>(filled), '#') +
         std::string(static_cast<std::size_t>(kWidth - filled), '.');
}

}  // namespace

Progress::Progress(std::string_view task, std::uint64_t total, std::string_view unit, Style style)
    : task_(task),
      unit_(unit),
      total_(total),
      style_(style),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_shown_(start_) {}

Progress::~Progress() { finish(); }

void Progress::advance(std::uint64_t units, std::string_view detail) {
  done_ += units;
  detail_ = detail;
  if (style_ == Style::quiet) return;
  const double wait = terminal_ ? 0.1 : 30.0;
  if (seconds_between(last_shown_, Clock::now()) >= wait) show(false);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (style_ == Style::quiet) return;
  if (terminal_ && shown_) show(true);
}

void Progress::show(bool last) {
  const Clock::time_point now = Clock::now();
  const double elapsed = seconds_between(start_, now);
  const double share = total_ == 0 ? 1.0 : static_cast<double>(done_) / static_cast<double>(total_);
  const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
  std::string line =
      fmt::format("{} {}/{} {}, {:.2f} {}/s", task_, done_, total_, unit_, rate, unit_);
  if (done_ > 0 && done_ < total_) {
    line += ", left " + format_seconds(elapsed * (1 - share) / share);
  }
  if (!detail_.empty()) line += ", " + detail_;
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[K[{}] {}{}", bar(share), line, last ? "\n" : "");
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
  last_shown_ = now;
  shown_ = true;
}

std::string format_seconds(double seconds) {
  if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  if (total < 3600) return fmt::format("{} min {:02} s", total / 60, total % 60);
  return fmt::format("{} h {:02} min", total / 3600, total % 3600 / 60);
}

std::string format_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  std::size_t unit = 0;
  while (bytes >= 1000 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, kUnits[unit]);
}

}  // namespace moefy
