#pragma once

#include "moefy/core/hash.hpp"
#include "object_reader.hpp"

namespace moefy {

/// An attribute that counts something: 0 .. 2^31 - 1, else InputError.
std::int64_t count_attribute(const ObjectReader& reader, const std::string& name);

/// An attribute of 32 hexadecimal digits, else InputError.
Digest digest_attribute(const ObjectReader& reader, const std::string& name);

}  // namespace moefy
