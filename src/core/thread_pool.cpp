#include "moefy/core/thread_pool.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "moefy/core/error.hpp"

namespace moefy {

struct ThreadPool::Impl {
  std::mutex mutex;
  std::condition_variable work_ready;
  std::condition_variable work_done;
  std::vector<std::jthread> threads;

  // One loop at a time; `generation` tells the sleepers that there is a new one.
  std::uint64_t generation = 0;
  bool stopping = false;
  std::size_t active = 0;
  const std::function<void(std::size_t)>* body = nullptr;
  std::size_t count = 0;
  std::atomic<std::size_t> next{0};
  std::size_t failed_index = std::numeric_limits<std::size_t>::max();
  std::exception_ptr failure;

  void run_iterations() {
    while (true) {
      const std::size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        (*body)(index);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (index < failed_index) {
          failed_index = index;
          failure = std::current_exception();
        }
      }
    }
  }

  void serve() {
    std::uint64_t seen = 0;
    while (true) {
      {
        std::unique_lock lock(mutex);
        work_ready.wait(lock, [&] { return stopping || generation != seen; });
        if (stopping) return;
        seen = generation;
      }
      run_iterations();
      const std::lock_guard lock(mutex);
      if (--active == 0) work_done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(std::size_t num_threads) : impl_(std::make_unique<Impl>()) {
  require(num_threads >= 1, "a thread pool has at least one thread");
  for (std::size_t i = 1; i < num_threads; ++i)
    impl_->threads.emplace_back([this] { impl_->serve(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->work_ready.notify_all();
}

std::size_t ThreadPool::size() const { return impl_->threads.size() + 1; }

void ThreadPool::for_each(std::size_t count, const std::function<void(std::size_t)>& body) {
  if (count == 0) return;
  if (impl_->threads.empty() || count == 1) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  Impl& pool = *impl_;
  {
    const std::lock_guard lock(pool.mutex);
    pool.body = &body;
    pool.count = count;
    pool.next.store(0, std::memory_order_relaxed);
    pool.failed_index = std::numeric_limits<std::size_t>::max();
    pool.failure = nullptr;
    pool.active = pool.threads.size();
    ++pool.generation;
  }
  pool.work_ready.notify_all();
  pool.run_iterations();
  std::unique_lock lock(pool.mutex);
  pool.work_done.wait(lock, [&] { return pool.active == 0; });
  if (pool.failure) std::rethrow_exception(pool.failure);
}

std::size_t affinity_cpu_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) {
    return std::max(1u, std::thread::hardware_concurrency());
  }
  return static_cast<std::size_t>(std::max(1, CPU_COUNT(&set)));
}

}  // namespace moefy
