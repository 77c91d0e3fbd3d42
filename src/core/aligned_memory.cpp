#include <cstdlib>
#include <new>

#include "huge_pages.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

void* allocate_aligned(std::size_t bytes) {
  constexpr std::size_t kCacheLine = 64;
  const bool large = bytes >= 2 * kHugePage;
  const std::size_t alignment = large ? kHugePage : kCacheLine;
  const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
  void* block = nullptr;
  if (posix_memalign(&block, alignment, whole) != 0) throw std::bad_alloc();
  if (large) advise_huge_pages(block, whole);
  return block;
}

}  // namespace moefy
