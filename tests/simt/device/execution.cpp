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
#include <boost/context/fiber.hpp>
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

class Barrier;
void sleep_until_released(const Barrier& barrier, unsigned generation);

class Barrier {
 public:
  explicit Barrier(unsigned expected) : expected_(expected) {}
  void wait() {
    const unsigned generation = generation_;
    if (++arrived_ == expected_) {
      release();
    } else {
      sleep_until_released(*this, generation);
    }
  }
  void leave() {
    --expected_;
    if (expected_ > 0 && arrived_ == expected_) release();
  }
  unsigned generation() const { return generation_; }

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

/// Where a fibre goes on; boost::context switches without a system call, as swapcontext cannot.
using Context = boost::context::fiber;

class Stack {
 public:
  static constexpr std::size_t kBytes = 128 * 1024;
  const void* bottom() const { return memory_.get(); }
  /// For Boost, which wants an allocator; the memory stays ours.
  auto allocator() {
    struct Allocator {
      void* top;
      boost::context::stack_context allocate() {
        boost::context::stack_context stack;
        stack.size = kBytes;
        stack.sp = top;
        return stack;
      }
      void deallocate(boost::context::stack_context&) {}
    };
    return Allocator{memory_.get() + kBytes};
  }

 private:
  std::unique_ptr<unsigned char[]> memory_{new unsigned char[kBytes]};
};

Context run_kernels(Context&& scheduler);

/// One thread of a kernel with a stack of its own; runs kernel after kernel.
struct Fibre {
  Stack stack;
  Context context{std::allocator_arg, stack.allocator(), run_kernels};
  Thread thread;
  bool done = false;
  // What it waits for, if anything.
  const Barrier* barrier = nullptr;
  unsigned generation = 0;

  bool waits() const { return barrier != nullptr && barrier->generation() == generation; }
};

// Never destroyed: a fibre that waits for its next kernel has no end.
std::vector<std::unique_ptr<Fibre>>& fibres = *new std::vector<std::unique_ptr<Fibre>>;
// The one launch that is running.
Fibre* current = nullptr;
const std::function<void()>* current_kernel = nullptr;
Context scheduler;

/// AddressSanitizer must know which stack is in use.
class StackSwitch {
 public:
#if SIMT_ADDRESS_SANITIZER
  StackSwitch(const void* bottom, std::size_t bytes) {
    __sanitizer_start_switch_fiber(&fake_stack_, bottom, bytes);
  }
  void arrived(const void** bottom_left, std::size_t* bytes_left) {
    __sanitizer_finish_switch_fiber(fake_stack_, bottom_left, bytes_left);
  }

 private:
  void* fake_stack_ = nullptr;
#else
  StackSwitch(const void* /*bottom*/, std::size_t /*bytes*/) {}
  void arrived(const void** /*bottom_left*/, std::size_t* /*bytes_left*/) {}
#endif
};
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;

// The two switches have no frames on ASan's own heap: of 1024 fibres they would push each other out
// of the caches at every step.
__attribute__((no_sanitize_address)) void enter_fibre(Fibre& fibre) {
  current = &fibre;
  running = &fibre.thread;
  StackSwitch to_fibre(fibre.stack.bottom(), Stack::kBytes);
  fibre.context = std::move(fibre.context).resume();
  to_fibre.arrived(nullptr, nullptr);
  running = nullptr;
}

__attribute__((no_sanitize_address)) void leave_fibre() {
  StackSwitch to_scheduler(scheduler_stack, scheduler_stack_bytes);
  scheduler = std::move(scheduler).resume();
  to_scheduler.arrived(&scheduler_stack, &scheduler_stack_bytes);
}

void sleep_until_released(const Barrier& barrier, unsigned generation) {
  Fibre& fibre = *current;
  fibre.barrier = &barrier;
  fibre.generation = generation;
  leave_fibre();
  fibre.barrier = nullptr;
}

Context run_kernels(Context&& first_scheduler) {
  scheduler = std::move(first_scheduler);
#if SIMT_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  while (true) {
    (*current_kernel)();
    Fibre& fibre = *current;
    fibre.thread.block->leave(fibre.thread);
    fibre.done = true;
    leave_fibre();
  }
}

/// Takes turns until all of them are through.
void run_to_the_end(std::span<const std::unique_ptr<Fibre>> threads) {
  for (bool left = true; left;) {
    left = false;
    bool progress = false;
    for (const auto& thread : threads) {
      if (thread->done) continue;
      left = true;
      if (thread->waits()) continue;
      progress = true;
      enter_fibre(*thread);
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
        Fibre& fibre = *fibres[b * block_size + t];
        fibre.thread = {dim3(t), position(first + b, grid), dim3(block_size), grid,
                        running_blocks.back().get()};
        fibre.done = false;
      }
    }
    run_to_the_end(std::span(fibres.data(), at_once * block_size));
  }
}

#endif

}  // namespace simt
