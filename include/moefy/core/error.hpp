#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace moefy {

/// Exit codes of the moefy process.
enum class ExitCode : int {
  done = 0,
  differs = 1,
  usage = 2,
  input = 3,
  io = 4,
  comm = 5,
  device = 6,
  internal = 70,
  interrupted = 75,
};

/// One word for the last stderr line `moefy: exit N (reason)`.
std::string_view reason(ExitCode code);

/// Base of everything moefy throws on purpose. The message is meant for the user: it names the
/// file, tensor, layer and the remedy where there is one.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Options or a plan that cannot work (exit 2). Holds every problem found, one a line.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(ExitCode::usage, message) {}
  explicit UsageError(const std::vector<std::string>& problems);
};

/// Data that is not what it should be: checkpoint, map, recordings (exit 3).
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(ExitCode::input, message) {}
};

/// The file system said no (exit 4). `error_number` 0: the message says it all.
class IoError : public Error {
 public:
  explicit IoError(const std::string& message) : Error(ExitCode::io, message) {}
  IoError(const std::string& path, const std::string& action, int error_number);
};

/// A lost peer or a failed communication call (exit 5).
class CommError : public Error {
 public:
  explicit CommError(const std::string& message) : Error(ExitCode::comm, message) {}
};

/// A device call failed (exit 6).
class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(ExitCode::device, message) {}
};

/// Stopped by a signal or the wall time; can be resumed (exit 75).
class Interrupted : public Error {
 public:
  explicit Interrupted(const std::string& message) : Error(ExitCode::interrupted, message) {}
};

/// A broken promise inside moefy (exit 70).
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message) : Error(ExitCode::internal, message) {}
};

/// Throws the class that belongs to `code`: how an error that happened on another rank is rethrown.
[[noreturn]] void throw_error(ExitCode code, const std::string& message);

/// Rethrows the exception being handled with `context` + ": " before its message, class kept. Use
/// it in a catch block, to add the layer, tensor or file that only the caller knows.
[[noreturn]] void rethrow_with_context(const std::string& context);

/// Precondition inside moefy; throws InternalError with the place of the call.
void require(bool condition, std::string_view text,
             std::source_location where = std::source_location::current());

}  // namespace moefy
