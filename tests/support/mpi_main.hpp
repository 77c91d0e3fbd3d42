#pragma once

#include <gtest/gtest.h>

#include "moefy/comm/communicator.hpp"

namespace moefy::test {

/// The communicator of this test program (tests/support/mpi_main.cpp makes it around gtest).
Communicator& world();

/// True if `mine` is true on every rank. Collective.
bool on_all_ranks(bool mine);

/// The longest MPI message in test programs: small, so that cutting is tested with little data.
constexpr std::size_t kTestChunkBytes = std::size_t{1} << 20;

}  // namespace moefy::test

/// Ends the test on all ranks unless `condition` holds on every one. Collective: use it before a
/// collective that would otherwise wait for a rank that has left.
#define ASSERT_ALL_RANKS(condition)                                                        \
  do {                                                                                     \
    const bool moefy_mine = static_cast<bool>(condition);                                  \
    EXPECT_TRUE(moefy_mine) << #condition << " on rank " << ::moefy::test::world().rank(); \
    if (!::moefy::test::on_all_ranks(moefy_mine)) GTEST_FAIL() << #condition;              \
  } while (false)
