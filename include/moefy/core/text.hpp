#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moefy {

/// Text as the bytes of a message, and back.
std::vector<std::byte> to_bytes(std::string_view text);
std::string to_text(std::span<const std::byte> bytes);

/// Whole text as a decimal integer; nothing for anything else (empty, overflow, trailing text).
std::optional<std::int64_t> parse_integer(std::string_view text);
/// A finite decimal number; nothing if `text` is anything else.
std::optional<double> parse_real(std::string_view text);
/// Bytes: a number with an optional K, M, G, T (powers of 1000) or KiB, MiB, GiB, TiB.
std::optional<std::uint64_t> parse_bytes(std::string_view text);
/// Seconds: `90`, `90s`, `15m`, `2h`.
std::optional<double> parse_duration(std::string_view text);
/// Pieces between `separator`; an empty text has one empty piece.
std::vector<std::string> split_text(std::string_view text, char separator);
std::string join_text(std::span<const std::string> pieces, std::string_view separator);
/// "3, 5, 9", or with more than `most` numbers "3, 5, 9 and 17 more".
std::string first_numbers(std::span<const std::int32_t> numbers, std::size_t most);

/// The candidates nearest to a misspelt `name` (edit distance), best first, at most `most`.
std::vector<std::string> nearest_names(std::string_view name,
                                       std::span<const std::string> candidates,
                                       std::size_t most = 3);
/// "; did you mean a, b?" from nearest_names, or the list of all if there are few.
std::string suggestion(std::string_view name, std::span<const std::string> candidates);

}  // namespace moefy
