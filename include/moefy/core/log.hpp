#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace moefy {

enum class LogLevel { debug, info, warning, error, off };

struct LogConfig {
  int rank = 0;
  /// Screen level (stderr). Ranks other than 0 print only errors there.
  LogLevel level = LogLevel::info;
  /// Every rank writes all levels to FILE (rank 0) or FILE.<rank>, independent of the screen.
  std::optional<std::filesystem::path> file;
};

/// One line an event on stderr, `[rank r] level message` when there are several ranks; wraps
/// spdlog. Passed by reference from main: there is no global logger.
class Log {
 public:
  /// Throws IoError if the log file cannot be opened.
  explicit Log(const LogConfig& config, int num_ranks = 1);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void debug(std::string_view message);
  void info(std::string_view message);
  void warning(std::string_view message);
  void error(std::string_view message);
  /// Writes to the log file only (progress detail, configuration dumps).
  void file_only(std::string_view message);
  LogLevel screen_level() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moefy
