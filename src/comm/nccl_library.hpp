#pragma once

#include <cstddef>
#include <string>

namespace moefy {

/// The part of NCCL that moefy uses, loaded when it is needed: a machine without it runs moefy all
/// the same. Types and values as in nccl.h of version 2.14 and later.
namespace nccl {

struct Communicator;
using Comm = Communicator*;

/// What calls return; all other values are errors, too.
enum Result : int { success = 0, unhandled_cuda_error = 1, in_progress = 7 };

struct UniqueId {
  char bytes[128];
};

/// The configuration of version 2.14; NCCL fills in what came later.
struct Config {
  std::size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

/// Elements of transfers (ncclInt8, ncclInt64), and how they are reduced (ncclSum).
inline constexpr int kBytes = 0;
inline constexpr int kInt64 = 4;
inline constexpr int kSum = 0;

/// Each named after its function: `send` is ncclSend.
struct Library {
  Result (*get_version)(int* version);
  Result (*get_unique_id)(UniqueId* id);
  Result (*comm_init_rank_config)(Comm* comm, int size, UniqueId id, int rank, Config* config);
  Result (*comm_get_async_error)(Comm comm, Result* state);
  Result (*comm_finalize)(Comm comm);
  Result (*comm_destroy)(Comm comm);
  Result (*comm_abort)(Comm comm);
  Result (*send)(const void* data, std::size_t count, int type, int peer, Comm comm, void* stream);
  Result (*recv)(void* data, std::size_t count, int type, int peer, Comm comm, void* stream);
  Result (*reduce)(const void* data, void* result, std::size_t count, int type, int operation,
                   int root, Comm comm, void* stream);
  const char* (*get_error_string)(Result result);
  const char* (*get_last_error)(Comm comm);
};

/// From the file that the variable MOEFY_NCCL names, else libnccl.so.2 where the loader looks.
/// Never unloaded. CommError if it cannot be loaded, or is too old.
const Library& load();
/// "2.27.3"
std::string version(const Library& library);

}  // namespace nccl
}  // namespace moefy
