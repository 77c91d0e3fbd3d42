#include "support/temp_dir.hpp"

#include <stdlib.h>

#include <stdexcept>

namespace moefy::test {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "moefy-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed for " + pattern);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace moefy::test
