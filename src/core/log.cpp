#include "moefy/core/log.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "moefy/core/error.hpp"
#include "moefy/core/host.hpp"

namespace moefy {

struct Log::Impl {
  LogLevel level;
  std::unique_ptr<spdlog::logger> screen;
  std::unique_ptr<spdlog::logger> file;

  void write(spdlog::level::level_enum level_in, std::string_view message) {
    if (file) file->log(level_in, "{}", message);
    screen->log(level_in, "{}", message);
  }
};

namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
    case LogLevel::off:
      return spdlog::level::off;
  }
  throw InternalError("unknown log level");
}

std::unique_ptr<spdlog::logger> file_logger(const LogConfig& config) {
  std::filesystem::path path = *config.file;
  if (config.rank > 0) path += fmt::format(".{}", config.rank);
  try {
    auto logger = std::make_unique<spdlog::logger>(
        "file", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string(), true));
    logger->set_level(spdlog::level::debug);
    logger->set_pattern(
        fmt::format("%Y-%m-%d %H:%M:%S.%e rank {} {} %l %v", config.rank, host_name()));
    logger->flush_on(spdlog::level::debug);
    return logger;
  } catch (const spdlog::spdlog_ex& error) {
    throw IoError(fmt::format("{}: cannot open the log file: {}", path.string(), error.what()));
  }
}

}  // namespace

Log::Log(const LogConfig& config, int num_ranks) : impl_(std::make_unique<Impl>()) {
  impl_->level = config.rank == 0 ? config.level : std::max(config.level, LogLevel::error);
  impl_->screen =
      std::make_unique<spdlog::logger>("screen", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  impl_->screen->set_level(to_spdlog(impl_->level));
  impl_->screen->set_pattern(num_ranks > 1 ? fmt::format("[rank {}] %l: %v", config.rank)
                                           : "%l: %v");
  if (config.file) impl_->file = file_logger(config);
}

Log::~Log() = default;

void Log::debug(std::string_view message) { impl_->write(spdlog::level::debug, message); }
void Log::info(std::string_view message) { impl_->write(spdlog::level::info, message); }
void Log::warning(std::string_view message) { impl_->write(spdlog::level::warn, message); }
void Log::error(std::string_view message) { impl_->write(spdlog::level::err, message); }
void Log::file_only(std::string_view message) {
  if (impl_->file) impl_->file->info("{}", message);
}
LogLevel Log::screen_level() const { return impl_->level; }

}  // namespace moefy
