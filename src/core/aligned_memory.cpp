#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "moefy/core/matrix.hpp"

namespace moefy {

void* allocate_aligned(std::size_t bytes) {
  constexpr std::size_t kCacheLine = 64;
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const bool large = bytes >= 2 * kHugePage;
  const std::size_t alignment = large ? kHugePage : kCacheLine;
  const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
  void* block = nullptr;
  if (posix_memalign(&block, alignment, whole) != 0) throw std::bad_alloc();
  // Advice only: where it is refused, small pages do.
  if (large) madvise(block, whole, MADV_HUGEPAGE);
  return block;
}

}  // namespace moefy
