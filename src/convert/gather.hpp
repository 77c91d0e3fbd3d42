#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "moefy/core/dtype.hpp"

namespace moefy {

/// Multiplies raw f32, f16 or bf16 values by a power of two, exactly: there and back gives the same
/// bits unless a value overflowed on the way.
class PowerOfTwoScale {
 public:
  PowerOfTwoScale(DType dtype, int log2);
  bool is_identity() const { return log2_ == 0; }
  /// In place. Returns the index of the first value that is not finite afterwards, or -1.
  std::ptrdiff_t apply(std::span<std::byte> values) const;

 private:
  DType dtype_;
  int log2_;
  std::vector<std::uint16_t> table_;  ///< of the 16-bit types: every value's product
};

/// Multiplies raw f32, f16 or bf16 values by any factor, rounded to the dtype, in place. Returns
/// the index of the first value that is not finite afterwards, or -1.
std::ptrdiff_t multiply_rounded(DType dtype, double factor, std::span<std::byte> values);

/// out row i = row neurons[i] of `rows` (each row_bytes long).
void gather_rows(std::span<const std::byte> rows, std::size_t row_bytes,
                 std::span<const std::int32_t> neurons, std::span<std::byte> out);
/// The reverse: row neurons[i] of `rows` = row i of `in`.
void scatter_rows(std::span<const std::byte> in, std::size_t row_bytes,
                  std::span<const std::int32_t> neurons, std::span<std::byte> rows);

/// out[i] = row[neurons[i]] for elements of `size` 2 or 4 bytes.
void gather_elements(const std::byte* row, std::size_t size, std::span<const std::int32_t> neurons,
                     std::byte* out);
/// row[neurons[i]] = in[i].
void scatter_elements(const std::byte* in, std::size_t size, std::span<const std::int32_t> neurons,
                      std::byte* row);

}  // namespace moefy
