#include "python_command.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

constexpr std::array kCommands = {
    PythonCommand{"record", "inputs of the FFN layers on real text, for methods that need them"},
    PythonCommand{"calibrate", "experts, routers and down projections fitted to real text"},
    PythonCommand{"recover", "distillation of the dense model into a converted one"},
    PythonCommand{"evaluate", "perplexity, agreement and speed beside the dense model"},
};

/// The package and its extension module, as the build lays them out beside bin/.
void add_package_to_search_path() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return;
  const fs::path folder = program.parent_path().parent_path() / "python";
  if (!fs::exists(folder / "moefy", error)) return;
  std::string path = folder.string();
  if (const char* more = std::getenv("PYTHONPATH"); more && *more) path += std::string(":") + more;
  ::setenv("PYTHONPATH", path.c_str(), 1);
}

}  // namespace

std::span<const PythonCommand> python_commands() { return kCommands; }

bool is_python_command(std::string_view name) {
  return std::ranges::any_of(kCommands,
                             [&](const PythonCommand& command) { return command.name == name; });
}

void run_python_command(const std::vector<std::string>& arguments) {
  add_package_to_search_path();
  const char* chosen = std::getenv("MOEFY_PYTHON");
  const std::string python = chosen && *chosen ? chosen : "python3";
  std::vector<std::string> words = {python, "-m", "moefy"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  throw UsageError(fmt::format(
      "{}: cannot run {} ({}); install Python with torch and transformers (launch/setup does) and "
      "name it in MOEFY_PYTHON",
      arguments.front(), python, std::strerror(errno)));
}

}  // namespace moefy
