#pragma once

#include <cstdint>
#include <span>

#include "moefy/backend/backend.hpp"

/// The primitives of the balanced assignment in vector loops over blocks of rows; see Backend for
/// what they mean. Results are the same for every instruction set and number of threads.
namespace moefy::cpu {

void best_sites(ThreadPool& threads, InstructionSet set, const CostView& q,
                std::span<const std::int32_t> prices, bool with_margins, SiteChoice& choice);

void smallest_moves(ThreadPool& threads, InstructionSet set, const CostView& q,
                    std::span<const std::int32_t> label, std::span<std::int32_t> key,
                    std::span<std::int32_t> row);

CertificateSums certificate_sums(ThreadPool& threads, InstructionSet set, const CostView& q,
                                 std::span<const std::int32_t> label,
                                 std::span<const std::int32_t> prices);

}  // namespace moefy::cpu
