#include "nccl_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>

#include "moefy/core/error.hpp"
#include "moefy/core/library_function.hpp"

namespace moefy::nccl {
namespace {

/// The first with non-blocking communicators.
constexpr int kOldestVersion = 21400;

template <class Function>
void find(void* library, const char* name, Function*& function) {
  find_in_library<CommError>(library, "NCCL", name, function);
}

int version_number(const Library& library) {
  int number = 0;
  if (library.get_version(&number) != success) throw CommError("NCCL does not tell its version");
  return number;
}

Library open() {
  const char* const named = std::getenv("MOEFY_NCCL");
  void* const handle = dlopen(named != nullptr ? named : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw CommError(fmt::format("NCCL cannot be loaded: {}", dlerror()));
  Library library{};
  find(handle, "ncclGetVersion", library.get_version);
  const int number = version_number(library);
  if (number < kOldestVersion) {
    throw CommError(fmt::format("NCCL {} is too old: 2.14 or newer is needed", version(library)));
  }
  find(handle, "ncclGetUniqueId", library.get_unique_id);
  find(handle, "ncclCommInitRankConfig", library.comm_init_rank_config);
  find(handle, "ncclCommGetAsyncError", library.comm_get_async_error);
  find(handle, "ncclCommFinalize", library.comm_finalize);
  find(handle, "ncclCommDestroy", library.comm_destroy);
  find(handle, "ncclCommAbort", library.comm_abort);
  find(handle, "ncclSend", library.send);
  find(handle, "ncclRecv", library.recv);
  find(handle, "ncclReduce", library.reduce);
  find(handle, "ncclGetErrorString", library.get_error_string);
  find(handle, "ncclGetLastError", library.get_last_error);
  return library;
}

}  // namespace

const Library& load() {
  static const Library library = open();
  return library;
}

std::string version(const Library& library) {
  const int number = version_number(library);
  // Until 2.8 the minor version had one digit; those are refused.
  return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

}  // namespace moefy::nccl
