#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace moefy {

/// Walks the HDF5 part of a map (`file` with its user block of `user_block` bytes) before the
/// library opens it: HDF5 releases in wide use run into endless loops and out of their buffers when
/// metadata was forged. Accepts what maps consist of: the earliest object format, groups by symbol
/// table, contiguous or compact data sets of integers, floats and texts, attributes of these, and
/// no two structures that overlap. Throws InputError naming `name` and the path inside the file.
void check_structure(std::span<const std::byte> file, std::size_t user_block,
                     const std::string& name);

}  // namespace moefy
