#pragma once

#include <string>
#include <string_view>

namespace moefy {

/// What the vector loops of the CPU code are written for, each a superset of the one before: loops
/// without a version for one use that. Integer results are the same on all; `amx_int8` has those of
/// `avx512_vnni` bit for bit.
enum class InstructionSet { portable, avx2, avx512_vnni, amx_int8 };

/// The spelling of --version and of make_cpu_backend.
std::string to_string(InstructionSet set);

/// Whether this CPU (and its operating system) runs it. Asks the kernel for the tile registers of
/// AMX, which it gives to a process once and for all.
bool is_supported(InstructionSet set);

/// The widest one this CPU runs.
InstructionSet best_instruction_set();

/// "auto" or a name; UsageError if unknown, or if this CPU lacks it.
InstructionSet choose_instruction_set(std::string_view name);

}  // namespace moefy
