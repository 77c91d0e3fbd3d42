#include "moefy/core/process_memory.hpp"

#include <cstdlib>  // defines __GLIBC__
#if defined(__GLIBC__)
#include <malloc.h>
#include <unistd.h>

#include <cstdint>

#include "huge_pages.hpp"
#endif

namespace moefy {

#if defined(__GLIBC__)
namespace {

constexpr int kMegabyte = 1 << 20;
constexpr int kHeapBytes = 32 * kMegabyte;

std::uintptr_t end_of_heap() { return reinterpret_cast<std::uintptr_t>(::sbrk(0)); }

/// Lets the heap grow before it is needed, and asks for huge pages there.
void widen_heap() {
  const std::uintptr_t begin = (end_of_heap() + kHugePage - 1) / kHugePage * kHugePage;
  mallopt(M_TOP_PAD, kHeapBytes);
  // Volatile, else a block that nobody uses is optimised away. The first stays: it keeps what
  // follows from the small pages before the first whole huge one, and is never touched.
  [[maybe_unused]] static void* volatile kept = std::malloc(begin - end_of_heap());
  void* volatile freed = std::malloc(kMegabyte);
  std::free(freed);
  const std::uintptr_t end = end_of_heap() / kHugePage * kHugePage;
  if (end > begin) advise_huge_pages(reinterpret_cast<void*>(begin), end - begin);
}

}  // namespace
#endif

void keep_freed_memory() {
#if defined(__GLIBC__)
  // Larger blocks still come from the system, in huge pages (allocate_aligned).
  mallopt(M_MMAP_THRESHOLD, 4 * kMegabyte);
  mallopt(M_TRIM_THRESHOLD, 64 * kMegabyte + kHeapBytes);
  mallopt(M_ARENA_MAX, 1);  // the others would be of small pages
  widen_heap();
  mallopt(M_TOP_PAD, kMegabyte);
#endif
}

}  // namespace moefy
