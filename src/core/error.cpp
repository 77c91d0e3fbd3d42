#include "moefy/core/error.hpp"

#include <fmt/format.h>

#include <cstring>

namespace moefy {

namespace {

std::string join_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) {
    if (!text.empty()) text += '\n';
    text += line;
  }
  return text;
}

}  // namespace

std::string_view reason(ExitCode code) {
  switch (code) {
    case ExitCode::done:
      return "done";
    case ExitCode::differs:
      return "differs";
    case ExitCode::usage:
      return "usage";
    case ExitCode::input:
      return "input data";
    case ExitCode::io:
      return "file system";
    case ExitCode::comm:
      return "communication";
    case ExitCode::device:
      return "device";
    case ExitCode::internal:
      return "internal error";
    case ExitCode::interrupted:
      return "interrupted, can be resumed";
  }
  return "unknown";
}

UsageError::UsageError(const std::vector<std::string>& problems)
    : Error(ExitCode::usage, join_lines(problems)) {}

IoError::IoError(const std::string& path, const std::string& action, int error_number)
    : Error(ExitCode::io,
            fmt::format("{}: cannot {}: {}", path, action, std::strerror(error_number))) {}

void throw_error(ExitCode code, const std::string& message) {
  switch (code) {
    case ExitCode::usage:
      throw UsageError(message);
    case ExitCode::input:
      throw InputError(message);
    case ExitCode::io:
      throw IoError(message);
    case ExitCode::comm:
      throw CommError(message);
    case ExitCode::device:
      throw DeviceError(message);
    case ExitCode::interrupted:
      throw Interrupted(message);
    default:
      throw InternalError(message);
  }
}

void rethrow_with_context(const std::string& context) {
  try {
    throw;
  } catch (const Error& error) {
    throw_error(error.code(), context + ": " + error.what());
  } catch (const std::bad_alloc&) {
    throw InternalError(context + ": out of memory");
  } catch (const std::exception& error) {
    throw InternalError(context + ": " + error.what());
  }
}

void require(bool condition, std::string_view text, std::source_location where) {
  if (condition) return;
  throw InternalError(fmt::format("{} ({}:{})", text, where.file_name(), where.line()));
}

}  // namespace moefy
