#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moefy {

/// A command that needs a live PyTorch model and therefore lives in the Python package.
struct PythonCommand {
  std::string_view name;
  std::string_view summary;
};
std::span<const PythonCommand> python_commands();
bool is_python_command(std::string_view name);

/// Becomes `$MOEFY_PYTHON -m moefy ARGUMENTS…` (default python3), with the package beside this
/// program in the search path. Returns only by throwing: UsageError saying what to install.
[[noreturn]] void run_python_command(const std::vector<std::string>& arguments);

}  // namespace moefy
