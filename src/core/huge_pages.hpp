#pragma once

#include <sys/mman.h>

#include <cstddef>

namespace moefy {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// Asks for huge pages from `begin`, the beginning of a page. Advice only: where it is refused,
/// small pages do.
inline void advise_huge_pages(void* begin, std::size_t bytes) {
  madvise(begin, bytes, MADV_HUGEPAGE);
}

}  // namespace moefy
