// Stands in for NCCL where devices are simulated: the calls that moefy makes, with the meanings of
// the original. Bytes travel as files in a folder that the unique id names, so that the ranks may
// be processes; a send ends when its file was received, as a rendezvous does. Calls return before
// they have taken effect, and nothing may be called until ncclCommGetAsyncError says so.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <cstdlib>

#include "cuda_runtime.h"
#include "simt.hpp"

namespace {

namespace fs = std::filesystem;

enum Result {
  success = 0,
  remote_error = 6,
  invalid_usage = 5,
  invalid_argument = 4,
  in_progress = 7
};

struct UniqueId {
  char folder[128];
};

struct Config {
  std::size_t size;
  unsigned magic;
  unsigned version;
  int blocking;
};

/// What both ends of a transfer know.
struct Shared {
  fs::path folder;
  std::atomic<bool> aborted = false;
  std::atomic<Result> error = success;
};

}  // namespace

struct Communicator {
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  int device = -1;  ///< that was chosen when it was made
  int rank = 0;
  int size = 0;
  bool joined = false;
  bool leaving = false;
  int polls_left = 0;                 ///< until the call before has taken effect
  std::function<void()> effect;       ///< of that call
  std::map<int, int> sent, received;  ///< by peer
  int reduced = 0;

  bool may_use(const simt::Stream* stream, const void* data, std::size_t bytes) const {
    return simt::device_of(stream) == device && simt::is_memory_for(stream, data, bytes);
  }
  /// A call that takes effect two polls later.
  Result begin(std::function<void()> work) {
    if (polls_left > 0 || !joined) return invalid_usage;
    effect = std::move(work);
    polls_left = 2;
    return in_progress;
  }
};

namespace {

void leave_mark(const Communicator& comm, const std::string& what) {
  std::ofstream(comm.shared->folder / (what + std::to_string(comm.rank)));
}

bool all_left_mark(const Communicator& comm, const std::string& what) {
  for (int rank = 0; rank < comm.size; ++rank) {
    if (!fs::exists(comm.shared->folder / (what + std::to_string(rank)))) return false;
  }
  return true;
}

fs::path file_of(const Shared& shared, int from, int to, int number) {
  return shared.folder /
         (std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(number));
}

void write_whole(const fs::path& path, const char* data, std::size_t size) {
  const fs::path part = path.string() + ".part";
  std::ofstream(part, std::ios::binary).write(data, static_cast<std::streamsize>(size));
  std::error_code gone;  // the folder, because another rank has aborted
  fs::rename(part, path, gone);
}

fs::path file_of_reduction(const Shared& shared, int from, int number) {
  return shared.folder / ("sum-" + std::to_string(from) + "-" + std::to_string(number));
}

bool receive(Shared& shared, const fs::path& path, char* data, std::size_t size) {
  std::error_code gone;
  const std::uintmax_t found = fs::file_size(path, gone);
  if (gone) return false;
  if (found == size) {
    std::ifstream(path, std::ios::binary).read(data, static_cast<std::streamsize>(size));
  } else {
    shared.error = invalid_argument;  // both ends must name the same count
  }
  fs::remove(path, gone);
  return true;
}

}  // namespace

extern "C" {

int ncclGetVersion(int* version) {
  *version = 22703;
  return success;
}

int ncclGetUniqueId(UniqueId* id) {
  if (simt::call_fails("ncclGetUniqueId")) return remote_error;
  const std::string pattern = (fs::temp_directory_path() / "moefy-nccl-XXXXXX").string();
  std::memset(id, 0, sizeof *id);
  std::strncpy(id->folder, pattern.c_str(), sizeof id->folder - 1);
  return mkdtemp(id->folder) == nullptr ? remote_error : success;
}

int ncclCommInitRankConfig(Communicator** comm, int size, UniqueId id, int rank, Config* config) {
  if (simt::call_fails("ncclCommInitRankConfig")) {
    std::error_code ignored;
    fs::remove_all(id.folder, ignored);
    return remote_error;
  }
  if (config->magic != 0xcafebeef || config->blocking != 0) return invalid_argument;
  *comm = new Communicator;
  (*comm)->shared->folder = id.folder;
  cudaGetDevice(&(*comm)->device);
  (*comm)->rank = rank;
  (*comm)->size = size;
  leave_mark(**comm, "joined-");
  return in_progress;
}

int ncclCommGetAsyncError(Communicator* comm, int* state) {
  if (simt::call_fails("ncclCommGetAsyncError")) {
    *state = remote_error;
    return success;
  }
  if (!comm->joined) {
    comm->joined = all_left_mark(*comm, "joined-");
    *state = comm->joined ? success : in_progress;
    return success;
  }
  if (comm->polls_left > 0 && --comm->polls_left == 0) comm->effect();
  const bool busy = comm->polls_left > 0 || (comm->leaving && !all_left_mark(*comm, "leaving-"));
  const Result error = comm->shared->error;
  *state = error != success ? error : busy ? in_progress : success;
  return success;
}

int ncclSend(const void* data, std::size_t count, int type, int peer, Communicator* comm,
             simt::Stream* stream) {
  if (simt::call_fails("ncclSend")) return remote_error;
  if (type != 0 || !comm->may_use(stream, data, count)) return invalid_argument;
  const fs::path path = file_of(*comm->shared, comm->rank, peer, comm->sent[peer]++);
  leave_mark(*comm, "sending-");
  return comm->begin([=, shared = comm->shared] {
    simt::add_to_stream(stream, [=, written = false]() mutable {
      if (shared->aborted) return true;
      if (!written) write_whole(path, static_cast<const char*>(data), count);
      written = true;
      return !fs::exists(path);
    });
  });
}

int ncclRecv(void* data, std::size_t count, int type, int peer, Communicator* comm,
             simt::Stream* stream) {
  if (simt::call_fails("ncclRecv")) return remote_error;
  if (type != 0 || !comm->may_use(stream, data, count)) return invalid_argument;
  const fs::path path = file_of(*comm->shared, peer, comm->rank, comm->received[peer]++);
  return comm->begin([=, shared = comm->shared] {
    simt::add_to_stream(stream, [=] {
      return shared->aborted || receive(*shared, path, static_cast<char*>(data), count);
    });
  });
}

int ncclReduce(const void* data, void* result, std::size_t count, int type, int operation, int root,
               Communicator* comm, simt::Stream* stream) {
  if (simt::call_fails("ncclReduce")) return remote_error;
  const std::size_t size = count * sizeof(std::int64_t);
  if (type != 4 || operation != 0 || root < 0 || root >= comm->size ||
      !comm->may_use(stream, data, size) || !comm->may_use(stream, result, size)) {
    return invalid_argument;
  }
  const int number = comm->reduced++;
  leave_mark(*comm, "reducing-");
  if (comm->rank != root) {
    const fs::path path = file_of_reduction(*comm->shared, comm->rank, number);
    return comm->begin([=, shared = comm->shared] {
      simt::add_to_stream(stream, [=, written = false]() mutable {
        if (shared->aborted) return true;
        if (!written) write_whole(path, static_cast<const char*>(data), size);
        written = true;
        // Without its folder another rank has gone, without a word.
        return !fs::exists(path) && fs::exists(shared->folder);
      });
    });
  }
  std::map<int, fs::path> missing;
  for (int rank = 0; rank < comm->size; ++rank) {
    if (rank != root) missing[rank] = file_of_reduction(*comm->shared, rank, number);
  }
  return comm->begin([=, shared = comm->shared] {
    simt::add_to_stream(stream, [=, begun = false]() mutable {
      if (shared->aborted) return true;
      if (!begun) std::memmove(result, data, size);
      begun = true;
      std::vector<std::uint64_t> part(count);
      std::erase_if(missing, [&](const auto& entry) {
        if (!receive(*shared, entry.second, reinterpret_cast<char*>(part.data()), size))
          return false;
        auto* const sums = static_cast<std::uint64_t*>(result);  // unsigned: they wrap
        for (std::size_t i = 0; i < count; ++i) sums[i] += part[i];
        return true;
      });
      return missing.empty();
    });
  });
}

int ncclCommFinalize(Communicator* comm) {
  if (simt::call_fails("ncclCommFinalize")) return remote_error;
  return comm->begin([comm] {
    comm->leaving = true;
    leave_mark(*comm, "leaving-");
  });
}

int ncclCommDestroy(Communicator* comm) {
  if (simt::call_fails("ncclCommDestroy")) return remote_error;
  leave_mark(*comm, "gone-");
  std::error_code ignored;
  if (all_left_mark(*comm, "gone-")) fs::remove_all(comm->shared->folder, ignored);
  delete comm;
  return success;
}

int ncclCommAbort(Communicator* comm) {
  comm->shared->aborted = true;
  std::error_code ignored;
  fs::remove_all(comm->shared->folder, ignored);
  delete comm;
  return success;
}

const char* ncclGetErrorString(int result) {
  return result == remote_error ? "remote process exited or there was a network error"
                                : "invalid usage";
}

const char* ncclGetLastError(Communicator* /*comm*/) { return ""; }
}
