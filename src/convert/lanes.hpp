#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// Every i below `count` goes to one of at most `most` workers, which work side by side on the
/// threads of `pool`. make_worker() is called once a thread and gives what is called with i.
template <class MakeWorker>
void run_lanes(ThreadPool& pool, std::size_t most, std::size_t count,
               const MakeWorker& make_worker) {
  std::atomic<std::size_t> next = 0;
  pool.for_each(std::min(pool.size(), most), [&](std::size_t) {
    auto worker = make_worker();
    for (std::size_t i = next++; i < count; i = next++) worker(i);
  });
}

}  // namespace moefy
