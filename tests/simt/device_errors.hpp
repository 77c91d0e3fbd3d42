#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "moefy/core/error.hpp"

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

}  // namespace moefy::test
