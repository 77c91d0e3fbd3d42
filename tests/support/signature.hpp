#pragma once

#include <string>
#include <type_traits>

namespace moefy::test {

template <class T>
std::string passed_as() {
  if (std::is_pointer_v<T>) return "pointer";
  return (std::is_class_v<T> ? "struct of " : "number of ") + std::to_string(sizeof(T)) + " bytes";
}

template <class Function>
struct Signature;
template <class Result, class... Parameters>
struct Signature<Result(Parameters...)> {
  static std::string text() {
    return ((passed_as<Result>() + " of") + ... + (" " + passed_as<Parameters>() + ","));
  }
};

/// What a function, or what a pointer to one leads to, takes and returns as machine code sees it,
/// whatever the types are called.
template <class Function>
std::string signature() {
  return Signature<std::remove_pointer_t<Function>>::text();
}

}  // namespace moefy::test
