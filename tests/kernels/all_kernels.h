// Every set of kernels that can run here: those of the machine's instruction sets, and those of the tile unit on an emulated
// one where the machine has none.
#pragma once

#include <string.h>

#include <vector>

#include "kernels/cpu/cpu_kernels.h"

#if defined(EXPERT_EMULATED_TILES)
namespace expert::kernels::emulatedamx {
extern const CpuKernels table;
}
#endif

namespace expert::kernels {

inline std::vector<const CpuKernels*> all_kernels() {
  std::vector<const CpuKernels*> all;
  for (const CpuKernels* const* k = available_kernels(); *k != nullptr; ++k) all.push_back(*k);
#if defined(EXPERT_EMULATED_TILES)
  // All but the tiles is true: vectors with products of pairs.
  if (find_kernels("amx") == nullptr && find_kernels("avx512bf16") != nullptr) all.push_back(&emulatedamx::table);
#endif
  return all;
}

// The set with a tile unit, if there is one.
inline const CpuKernels* tile_kernels() {
  for (const CpuKernels* k : all_kernels()) {
    if (strstr(k->isa, "amx") != nullptr) return k;
  }
  return nullptr;
}

}  // namespace expert::kernels
