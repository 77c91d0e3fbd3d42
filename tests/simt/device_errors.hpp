#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "moefy/backend/backend.hpp"
#include "moefy/core/error.hpp"
#include "simt.hpp"

namespace moefy::test {

/// The message of the DeviceError (exit 6) that `action` throws, or "no error".
inline std::string device_error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const DeviceError& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    return error.what();
  }
  return "no error";
}

/// Does `use` with new backends, whose first, second, … `call` fails, until none does. Expects a
/// DeviceError that names the device and no memory left each time; how many calls failed.
inline int reported_failures(const char* call, const std::function<void(Backend&)>& use) {
  const std::size_t before = simt::device_memory_in_use();
  for (int nth = 1;; ++nth) {
    SCOPED_TRACE(testing::Message() << call << ", call " << nth);
    std::string message;
    {
      const auto backend = make_cuda_backend(0, 1);
      simt::fail(call, nth);
      message = device_error_of([&] { use(*backend); });
      simt::fail("");
    }
    EXPECT_EQ(simt::device_memory_in_use(), before);
    if (message == "no error") return nth - 1;
    EXPECT_EQ(message.rfind("device 0", 0), 0U) << message;
  }
}

}  // namespace moefy::test
