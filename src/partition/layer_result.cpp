#include "moefy/partition/layer_result.hpp"

#include <fmt/format.h>

#include <array>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

constexpr std::array<std::pair<StopReason, const char*>, 4> kStopReasons{{
    {StopReason::fixpoint, "fixpoint"},
    {StopReason::rounding, "rounding"},
    {StopReason::cap, "cap"},
    {StopReason::not_clustered, "not-clustered"},
}};

}  // namespace

std::string to_string(StopReason reason) {
  for (const auto& [value, name] : kStopReasons) {
    if (value == reason) return name;
  }
  throw InternalError(fmt::format("stop reason {} has no name", static_cast<int>(reason)));
}

StopReason stop_reason_from(const std::string& text) {
  for (const auto& [value, name] : kStopReasons) {
    if (text == name) return value;
  }
  throw InputError(
      fmt::format("unknown stop reason '{}'; known: fixpoint, rounding, cap, not-clustered", text));
}

}  // namespace moefy
