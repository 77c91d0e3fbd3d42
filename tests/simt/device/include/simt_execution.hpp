#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  constexpr dim3(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1)
      : x(x_in), y(y_in), z(z_in) {}
};

/// CUDA's threads on the CPU: fibres of one thread (so that a run is repeatable, and
/// AddressSanitizer sees every access), or, under ThreadSanitizer, one thread each.
namespace simt {

inline constexpr unsigned kWarp = 32;

class Stream;
class Event;
struct MemoryPool;
class Block;

/// Whether blocks run as they come, or all at once so that they may wait for each other.
enum class Blocks { apart, together };

/// Where a kernel's thread finds itself.
struct Thread {
  dim3 thread_index;
  dim3 block_index;
  dim3 block_size;
  dim3 grid_size;
  Block* block = nullptr;
  unsigned num_exchanges = 0;
};

/// The thread of a kernel that is running now.
Thread& self();

/// Shared memory of the running block, as large as its launch asked for and filled with 0xcd.
void* block_memory();

void wait_for_block();
/// Only in a launch whose blocks run together.
void wait_for_grid();

/// Every lane of the warp hands over a word and gets the one of lane `source`.
std::uint64_t exchange_words(std::uint64_t word, unsigned source);

template <class T>
T exchange(T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = exchange_words(word, source);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

/// Queues a launch; it runs when somebody waits for the stream. Blocks that run together must all
/// fit the device at once.
void launch_later(dim3 grid, unsigned block_size, std::size_t shared_bytes, Stream* stream,
                  Blocks blocks, std::function<void()> kernel);

template <class... Parameters>
void launch_kernel(void (*kernel)(Parameters...), dim3 grid, unsigned block_size,
                   std::size_t shared_bytes, Stream* stream, Blocks blocks,
                   Parameters... parameters) {
  launch_later(grid, block_size, shared_bytes, stream, blocks, [=] { kernel(parameters...); });
}

/// Runs the blocks of one launch, now.
void run_grid(dim3 grid, unsigned block_size, std::size_t shared_bytes, Blocks blocks,
              const std::function<void()>& kernel);

}  // namespace simt
