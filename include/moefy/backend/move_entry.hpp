#pragma once

#include <cstddef>
#include <cstdint>

namespace moefy {

/// A row that may leave its site, and what the step costs. Lists are sorted by key, then row.
template <class Cost>
struct MoveEntry {
  Cost key;
  std::int32_t row;
};

/// The most moves of all pairs of sites that are listed ahead: 2 MB.
inline constexpr std::size_t kMostListedMoves = std::size_t{1} << 18;

}  // namespace moefy
