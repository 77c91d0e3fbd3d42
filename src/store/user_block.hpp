#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace moefy {

/// The first bytes of an expert map: magic, length and XXH3-128 of everything behind them, zeros.
/// HDF5 calls this a user block and skips it.
inline constexpr std::size_t kUserBlockSize = 512;

/// Fills the first kUserBlockSize bytes of `file` for what stands behind them.
void seal_user_block(std::span<std::byte> file);

/// Throws InputError naming `name` unless `file`, or the beginning of it, begins like a map.
void check_magic(std::span<const std::byte> file, const std::string& name);

/// Throws InputError naming `name` unless the block and everything behind it are what was sealed.
void check_user_block(std::span<const std::byte> file, const std::string& name);

}  // namespace moefy
