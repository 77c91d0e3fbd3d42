// modules: model
#include <cstdlib>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

/// A family file is refused with an InputError, or has a name and a model type.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const auto family = moefy::Architecture::from_json(text, "fuzz.json");
    if (family.name().empty() || family.model_types().empty()) std::abort();
  } catch (const moefy::InputError&) {
  }
  return 0;
}
