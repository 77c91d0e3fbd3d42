#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace moefy {

/// A fixed set of threads that share the iterations of a loop. Waiting threads sleep: a spinning
/// barrier costs a factor of ten when another job takes the core.
class ThreadPool {
 public:
  /// The calling thread is one of `num_threads` (>= 1); num_threads - 1 are started.
  explicit ThreadPool(std::size_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t size() const;

  /// Calls body(index) once for every index in [0, count), in any order on any thread, and returns
  /// when all are done. Results must not depend on which thread ran what. The exception of the
  /// lowest failing index is rethrown. Not to be called from inside a body.
  void for_each(std::size_t count, const std::function<void(std::size_t index)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// CPUs this process may run on.
std::size_t affinity_cpu_count();

}  // namespace moefy
