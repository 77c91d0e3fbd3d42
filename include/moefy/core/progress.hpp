#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace moefy {

/// How far long work is, on stderr: a bar on a terminal, a plain line every 30 s elsewhere, nothing
/// when quiet. Rate and time left come with it. Rank 0 only.
class Progress {
 public:
  enum class Style { automatic, quiet };
  /// `total` in `unit`s ("layers", "GB"); `weight_total` drives rate and time left when the units
  /// differ in size (0: count units).
  Progress(std::string_view task, std::uint64_t total, std::string_view unit, Style style);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(std::uint64_t units, std::string_view detail = {});
  /// Ends the bar; called by the destructor, too.
  void finish();

 private:
  void show(bool last);
  std::string task_;
  std::string unit_;
  std::string detail_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  Style style_;
  bool terminal_ = false;
  bool finished_ = false;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_shown_;
};

/// "1 h 05 min", "12.3 s", "45 ms".
std::string format_seconds(double seconds);
/// "1.23 GB" (powers of ten).
std::string format_bytes(double bytes);

}  // namespace moefy
