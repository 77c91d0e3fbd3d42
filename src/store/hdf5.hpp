#pragma once

#include <hdf5.h>

#include <cstddef>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moefy/core/error.hpp"
#include "unique_handle.hpp"

/// The little of HDF5 that the store needs: owned identifiers, checked calls, no printing.
namespace moefy::hdf5 {

/// A call of HDF5 failed. Callers who know the file turn it into the error that the user reads.
class Failure : public InternalError {
 public:
  Failure(const std::string& message, std::string reason, std::string stack)
      : InternalError(message), reason_(std::move(reason)), stack_(std::move(stack)) {}
  /// The innermost reason, one line.
  const std::string& reason() const { return reason_; }
  /// The library's own error stack, for the debug log.
  const std::string& stack() const { return stack_; }

 private:
  std::string reason_;
  std::string stack_;
};

/// Throws Failure naming the call and the library's own reason if `code` is negative; returns it
/// otherwise.
template <class Code>
Code check(Code code, std::string_view call,
           std::source_location where = std::source_location::current());
extern template hid_t check(hid_t, std::string_view, std::source_location);
extern template int check(int, std::string_view, std::source_location);
extern template hssize_t check(hssize_t, std::string_view, std::source_location);

/// While it lives, HDF5 prints nothing.
class SilentErrors {
 public:
  SilentErrors();
  ~SilentErrors();
  SilentErrors(const SilentErrors&) = delete;
  SilentErrors& operator=(const SilentErrors&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// Any identifier; closed by decreasing its reference count.
struct IdTraits {
  static constexpr hid_t kNone = H5I_INVALID_HID;
  static bool is_open(hid_t id) { return id >= 0; }
  static void close(hid_t id) noexcept;
};
using Id = UniqueHandle<hid_t, IdTraits>;

/// Takes ownership of what a creating call returned, or throws Failure.
Id own(hid_t id, std::string_view call,
       std::source_location where = std::source_location::current());

/// A file in memory (core driver), writable, with a user block of `user_block` bytes.
Id create_image(std::size_t user_block);
/// The bytes of that file, with room for the user block before them.
std::vector<std::byte> image_of(const Id& file, std::size_t user_block);
/// Opens `image` (user block included) read-only, in memory. The image must outlive the file.
Id open_image(std::span<const std::byte> image);

Id make_group(const Id& parent, const std::string& name);

/// The type in the file: little-endian, whatever the machine. T: std::int32_t, std::int64_t,
/// std::uint64_t, float, double.
template <class T>
hid_t file_type();
/// The type of a T in memory.
template <class T>
hid_t memory_type();
/// UTF-8 text of any length (0), or of exactly `size` bytes padded with zeros.
Id text_type(std::size_t size = 0);

/// A data space of these extents; none: one value.
Id space_of(std::span<const hsize_t> shape);

}  // namespace moefy::hdf5
