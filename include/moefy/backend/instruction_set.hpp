#pragma once

#include <string>
#include <string_view>

namespace moefy {

/// What the vector loops of the CPU code are written for. Integer results are the same on all.
enum class InstructionSet { portable, avx2, avx512_vnni };

/// The spelling of --version and of make_cpu_backend.
std::string to_string(InstructionSet set);

/// Whether this CPU (and its operating system) runs it.
bool is_supported(InstructionSet set);

/// The widest one this CPU runs.
InstructionSet best_instruction_set();

/// "auto" or a name; UsageError if unknown, or if this CPU lacks it.
InstructionSet choose_instruction_set(std::string_view name);

}  // namespace moefy
