#pragma once

#include <dlfcn.h>

#include <string>

namespace moefy {

/// Points `function` to function `name` of a library that dlopen() opened. Throws Error, which
/// names `library_name`, if it has none.
template <class Error, class Function>
void find_in_library(void* library, const char* library_name, const char* name,
                     Function*& function) {
  void* const found = dlsym(library, name);
  if (found == nullptr) throw Error(std::string(library_name) + " has no function " + name);
  function = reinterpret_cast<Function*>(found);
}

}  // namespace moefy
