#pragma once

#include <cstdint>
#include <span>

#include "moefy/backend/backend.hpp"

/// The primitives of the balanced assignment as plain loops; see Backend for what they mean.
namespace moefy::reference {

void best_sites(const CostView& q, std::span<const std::int32_t> prices, bool with_margins,
                SiteChoice& choice);

void smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                    std::span<std::int32_t> key, std::span<std::int32_t> row);

CertificateSums certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                 std::span<const std::int32_t> prices);

}  // namespace moefy::reference
