#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// One finished layer as bytes, for a message or the journal: everything of the result, with
/// seconds and rank. Little-endian, versioned; equal results give equal bytes. Integrity is the
/// carrier's business (the journal keeps a checksum).
std::vector<std::byte> encode_layer(const LayerResult& layer);

/// The reverse. Throws InputError naming `source` if the bytes are not a record of this version,
/// are cut, too long, or disagree with themselves; never allocates more than bytes.size()
/// announces.
LayerResult decode_layer(std::span<const std::byte> bytes, const std::string& source);

}  // namespace moefy
