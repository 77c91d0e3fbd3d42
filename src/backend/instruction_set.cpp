#include "moefy/backend/instruction_set.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

constexpr InstructionSet kWidestFirst[] = {InstructionSet::amx_int8, InstructionSet::avx512_vnni,
                                           InstructionSet::avx2, InstructionSet::portable};

#if defined(__x86_64__)
/// __builtin_cpu_supports does not know tiles with every compiler.
bool has_int8_tiles() {
  constexpr unsigned kTiles = 1U << 24;  // bits of EDX in leaf 7
  constexpr unsigned kInt8 = 1U << 25;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTiles) != 0 &&
         (edx & kInt8) != 0;
}

/// Linux keeps the 8 KiB of tile registers only for processes that ask (since 5.16).
bool may_use_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestComponent = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestComponent, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

std::string to_string(InstructionSet set) {
  switch (set) {
    case InstructionSet::portable:
      return "portable";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512_vnni:
      return "avx512-vnni";
    case InstructionSet::amx_int8:
      return "amx-int8";
  }
  throw InternalError("unknown instruction set");
}

bool is_supported([[maybe_unused]] InstructionSet set) {
#if defined(__x86_64__)
  switch (set) {
    case InstructionSet::portable:
      return true;
    case InstructionSet::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::avx512_vnni:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vnni");
    case InstructionSet::amx_int8:
      return is_supported(InstructionSet::avx512_vnni) && has_int8_tiles() && may_use_tiles();
  }
#endif
  return set == InstructionSet::portable;
}

InstructionSet best_instruction_set() {
  for (const InstructionSet set : kWidestFirst) {
    if (is_supported(set)) return set;
  }
  return InstructionSet::portable;
}

InstructionSet choose_instruction_set(std::string_view name) {
  if (name == "auto") return best_instruction_set();
  for (const InstructionSet set : kWidestFirst) {
    if (to_string(set) != name) continue;
    if (!is_supported(set)) {
      throw UsageError("this CPU has no " + std::string(name));
    }
    return set;
  }
  throw UsageError("unknown instruction set '" + std::string(name) +
                   "'; valid: auto, amx-int8, avx512-vnni, avx2, portable");
}

}  // namespace moefy
