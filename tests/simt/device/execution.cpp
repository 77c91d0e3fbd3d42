#include "simt_execution.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "sanitizers.hpp"
#include "simt.hpp"

#if !SIMT_THREAD_SANITIZER
#include <ucontext.h>
#endif
#if SIMT_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

[[noreturn]] void give_up(const char* text) {
  std::fprintf(stderr, "simt: %s\n", text);
  std::abort();
}

dim3 position(std::size_t index, dim3 size) {
  const std::size_t plane = std::size_t{size.x} * size.y;
  return {static_cast<unsigned>(index % size.x), static_cast<unsigned>(index % plane / size.x),
          static_cast<unsigned>(index / plane)};
}

#if SIMT_THREAD_SANITIZER

thread_local Thread* running = nullptr;

/// Blocks until all that are still there have come.
class Barrier {
 public:
  explicit Barrier(unsigned expected) : expected_(expected) {}
  void wait() {
    std::unique_lock lock(mutex_);
    const unsigned generation = generation_;
    if (++arrived_ == expected_) {
      release();
      return;
    }
    released_.wait(lock, [&] { return generation_ != generation; });
  }
  /// One less will ever come.
  void leave() {
    const std::lock_guard lock(mutex_);
    --expected_;
    if (expected_ > 0 && arrived_ == expected_) release();
  }

 private:
  void release() {
    arrived_ = 0;
    ++generation_;
    released_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable released_;
  unsigned expected_;
  unsigned arrived_ = 0;
  unsigned generation_ = 0;
};

#else

Thread* running = nullptr;
void yield();
bool progress = false;  // since the scheduler last looked

class Barrier {
 public:
  explicit Barrier(unsigned expected) : expected_(expected) {}
  void wait() {
    progress = true;
    const unsigned generation = generation_;
    if (++arrived_ == expected_) {
      release();
      return;
    }
    while (generation_ == generation) yield();
  }
  void leave() {
    progress = true;
    --expected_;
    if (expected_ > 0 && arrived_ == expected_) release();
  }

 private:
  void release() {
    arrived_ = 0;
    ++generation_;
  }
  unsigned expected_;
  unsigned arrived_ = 0;
  unsigned generation_ = 0;
};

#endif

}  // namespace

/// What the threads of a block share.
class Block {
 public:
  /// `grid`: the barrier of all blocks, if they run together.
  Block(unsigned num_threads, std::size_t shared_bytes, Barrier* grid)
      : barrier_(num_threads), grid_(grid), memory_(new unsigned char[shared_bytes]) {
    std::memset(memory_.get(), 0xcd, shared_bytes);
    for (unsigned first = 0; first < num_threads; first += kWarp) {
      warps_.push_back(std::make_unique<Warp>(std::min(kWarp, num_threads - first)));
    }
  }
  void* memory() { return memory_.get(); }
  void wait() { barrier_.wait(); }
  void wait_for_grid() {
    if (grid_ == nullptr) give_up("a kernel waits for blocks that were not launched together");
    grid_->wait();
  }
  /// Lanes hand over words by turns in two sets of slots: a lane that is one exchange ahead must
  /// not overwrite what the others still read.
  std::uint64_t exchange(Thread& thread, std::uint64_t word, unsigned source) {
    Warp& warp = *warps_[thread.thread_index.x / kWarp];
    std::uint64_t* const slots = warp.slot[thread.num_exchanges++ % 2];
    slots[thread.thread_index.x % kWarp] = word;
    warp.barrier.wait();
    return slots[source];
  }
  void leave(const Thread& thread) {
    warps_[thread.thread_index.x / kWarp]->barrier.leave();
    barrier_.leave();
    if (grid_ != nullptr) grid_->leave();
  }

 private:
  struct Warp {
    explicit Warp(unsigned lanes) : barrier(lanes) {}
    Barrier barrier;
    std::uint64_t slot[2][kWarp] = {};
  };
  Barrier barrier_;
  Barrier* grid_;
  std::unique_ptr<unsigned char[]> memory_;
  std::vector<std::unique_ptr<Warp>> warps_;
};

Thread& self() {
  if (running == nullptr) give_up("kernel code runs outside a kernel");
  return *running;
}
void* block_memory() { return self().block->memory(); }
void wait_for_block() { self().block->wait(); }
void wait_for_grid() { self().block->wait_for_grid(); }
std::uint64_t exchange_words(std::uint64_t word, unsigned source) {
  Thread& thread = self();
  return thread.block->exchange(thread, word, source);
}

#if SIMT_THREAD_SANITIZER

void run_grid(dim3 grid, unsigned block_size, std::size_t shared_bytes, Blocks blocks,
              const std::function<void()>& kernel) {
  const std::size_t num_blocks = std::size_t{grid.x} * grid.y * grid.z;
  const bool together = blocks == Blocks::together;
  Barrier grid_barrier(static_cast<unsigned>(num_blocks) * block_size);
  // Every multiprocessor works through its share of the blocks with one set of threads; nothing
  // orders the blocks of one against those of the other.
  struct Multiprocessor {
    explicit Multiprocessor(unsigned threads) : begin(threads), end(threads) {}
    // Two, so that a thread that is done orders nothing before one that is about to begin.
    Barrier begin;
    Barrier end;
    std::unique_ptr<Block> block;
  };
  std::vector<std::unique_ptr<Multiprocessor>> processors;
  std::vector<std::thread> threads;
  const std::size_t count =
      together ? num_blocks : std::min<std::size_t>(kMultiprocessors, num_blocks);
  for (std::size_t p = 0; p < count; ++p) {
    processors.push_back(std::make_unique<Multiprocessor>(block_size));
    Multiprocessor& processor = *processors.back();
    for (unsigned t = 0; t < block_size; ++t) {
      threads.emplace_back([&, p, t] {
        for (std::size_t b = p; b < num_blocks; b += count) {
          if (t == 0) {
            processor.block = std::make_unique<Block>(block_size, shared_bytes,
                                                      together ? &grid_barrier : nullptr);
          }
          processor.begin.wait();
          Thread thread{dim3(t), position(b, grid), dim3(block_size), grid, processor.block.get()};
          running = &thread;
          kernel();
          running = nullptr;
          thread.block->leave(thread);
          processor.end.wait();
        }
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
}

#else

namespace {

/// One thread of a kernel with a stack of its own.
struct Fibre {
  static constexpr std::size_t kStackBytes = 128 * 1024;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
  ucontext_t context{};
  Thread thread;
  bool done = false;
};

// The one launch that is running.
std::vector<std::unique_ptr<Fibre>> fibres;
Fibre* current = nullptr;
ucontext_t scheduler;
const std::function<void()>* current_kernel = nullptr;
#if SIMT_ADDRESS_SANITIZER
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
#endif

// AddressSanitizer must know which stack is in use.
void enter_fibre(Fibre& fibre) {
  current = &fibre;
  running = &fibre.thread;
#if SIMT_ADDRESS_SANITIZER
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fibre.stack.get(), Fibre::kStackBytes);
  swapcontext(&scheduler, &fibre.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  swapcontext(&scheduler, &fibre.context);
#endif
  running = nullptr;
}

void leave_fibre(Fibre& fibre, [[maybe_unused]] bool for_good) {
#if SIMT_ADDRESS_SANITIZER
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, scheduler_stack,
                                 scheduler_stack_bytes);
  swapcontext(&fibre.context, &scheduler);
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
#else
  swapcontext(&fibre.context, &scheduler);
#endif
}

void yield() { leave_fibre(*current, false); }

void fibre_main() {
#if SIMT_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  (*current_kernel)();
  Fibre& fibre = *current;
  fibre.thread.block->leave(fibre.thread);
  fibre.done = true;
  leave_fibre(fibre, true);
}

/// Lets a fibre begin the kernel as one thread of a block.
void prepare(Fibre& fibre, const Thread& thread) {
  fibre.thread = thread;
  fibre.done = false;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = Fibre::kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, fibre_main, 0);
}

/// Takes turns until all of them are through.
void run_to_the_end(std::span<const std::unique_ptr<Fibre>> threads) {
  for (bool left = true; left;) {
    left = false;
    progress = false;
    for (const auto& thread : threads) {
      if (thread->done) continue;
      enter_fibre(*thread);
      left = left || !thread->done;
    }
    if (left && !progress) give_up("deadlock: threads wait at a barrier that others never reach");
  }
}

}  // namespace

void run_grid(dim3 grid, unsigned block_size, std::size_t shared_bytes, Blocks blocks,
              const std::function<void()>& kernel) {
  const std::size_t num_blocks = std::size_t{grid.x} * grid.y * grid.z;
  const bool together = blocks == Blocks::together;
  const std::size_t at_once = together ? num_blocks : 1;
  while (fibres.size() < at_once * block_size) fibres.push_back(std::make_unique<Fibre>());
  current_kernel = &kernel;
  Barrier grid_barrier(static_cast<unsigned>(num_blocks) * block_size);
  for (std::size_t first = 0; first < num_blocks; first += at_once) {
    std::vector<std::unique_ptr<Block>> running_blocks;
    for (std::size_t b = 0; b < at_once; ++b) {
      running_blocks.push_back(
          std::make_unique<Block>(block_size, shared_bytes, together ? &grid_barrier : nullptr));
      for (unsigned t = 0; t < block_size; ++t) {
        prepare(*fibres[b * block_size + t], {dim3(t), position(first + b, grid), dim3(block_size),
                                              grid, running_blocks.back().get()});
      }
    }
    run_to_the_end(std::span(fibres.data(), at_once * block_size));
  }
}

#endif

}  // namespace simt
