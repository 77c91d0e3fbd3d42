#pragma once

#include <utility>

namespace moefy {

/// Owns one handle of a C library. `Traits` says what an empty handle is (`kNone`), which ones are
/// worth closing (`is_open`), and how (`close`, which must not throw).
template <class Handle, class Traits>
class UniqueHandle {
 public:
  UniqueHandle() = default;
  explicit UniqueHandle(Handle handle) : handle_(handle) {}
  ~UniqueHandle() { reset(); }
  UniqueHandle(UniqueHandle&& other) noexcept
      : handle_(std::exchange(other.handle_, Traits::kNone)) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, Traits::kNone);
    }
    return *this;
  }

  Handle get() const { return handle_; }
  void reset() noexcept {
    if (Traits::is_open(handle_)) Traits::close(handle_);
    handle_ = Traits::kNone;
  }

 private:
  Handle handle_ = Traits::kNone;
};

}  // namespace moefy
