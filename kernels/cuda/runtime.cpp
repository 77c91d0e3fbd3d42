#include "cuda/runtime.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <set>

#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

/// Pinned memory of a stream for uploads, and how much of it one piece takes.
constexpr std::size_t kStagingBytes = std::size_t{4} << 20;
constexpr std::size_t kStagedPiece = kStagingBytes / 4;

/// The streams of work that there are.
class WorkStreams {
 public:
  void add(cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    streams_.insert(stream);
  }
  void remove(cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    streams_.erase(stream);
  }
  /// What goes wrong in one is told to those who wait for it.
  void wait() {
    const std::lock_guard lock(mutex_);
    for (cudaStream_t stream : streams_) cudaStreamSynchronize(stream);
  }

 private:
  std::mutex mutex_;
  std::set<cudaStream_t> streams_;
};

WorkStreams& work_streams() {
  static WorkStreams all;
  return all;
}

}  // namespace

int current_device() {
  int device = -1;
  return cudaGetDevice(&device) == cudaSuccess ? device : -1;
}

void fail(const std::string& action, const std::string& reason) {
  throw DeviceError(fmt::format("device {}, {}: {}", current_device(), action, reason));
}

void check(cudaError_t error, const std::string& action) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next launch is not to blame
  fail(action, cudaGetErrorString(error));
}

void* allocate_pinned(std::size_t bytes) {
  constexpr double kMiB = 1024.0 * 1024.0;
  void* block = nullptr;
  check(cudaMallocHost(&block, bytes),
        fmt::format("pinning {:.1f} MiB of host memory", static_cast<double>(bytes) / kMiB));
  return block;
}

void free_pinned(void* block, std::size_t /*bytes*/) noexcept { cudaFreeHost(block); }

void wait_for_work() noexcept { work_streams().wait(); }

Stream::Stream(Use use) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  if (use == Use::work) work_streams().add(stream_);
}

Stream::~Stream() {
  cudaStreamSynchronize(stream_);
  work_streams().remove(stream_);
  cudaStreamDestroy(stream_);
}

void Stream::copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "copying memory");
}

void Stream::upload_bytes(std::span<const std::byte> from, void* to) {
  std::byte* const memory = staging_.resize(kStagingBytes);
  for (std::size_t done = 0; done < from.size();) {
    const std::span<const std::byte> piece =
        from.subspan(done, std::min(kStagedPiece, from.size() - done));
    if (piece.size() > kStagingBytes - staged_) {
      check(cudaStreamSynchronize(stream_), "copying memory");
      staged_ = 0;
    }
    std::memcpy(memory + staged_, piece.data(), piece.size());
    copy(static_cast<std::byte*>(to) + done, memory + staged_, piece.size(),
         cudaMemcpyHostToDevice);
    staged_ += piece.size();
    done += piece.size();
  }
}

void Stream::fill_bytes(void* to, int byte, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, byte, bytes, stream_), "filling memory");
}

void* Stream::landing_place(std::size_t bytes) {
  if (landings_in_use_ == landing_.size()) {
    landing_.push_back(std::make_unique<PinnedBuffer<unsigned char>>());
  }
  return landing_[landings_in_use_++]->resize(bytes);
}

void Stream::wait() {
  check(cudaStreamSynchronize(stream_), "running kernels");
  landings_in_use_ = 0;
  staged_ = 0;
}

}  // namespace moefy::cuda
