// Picks a table by what the processor has and the operating system saves on a context switch.
#include <string.h>

#include "kernels/cpu/cpu_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(EXPERT_HAS_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace expert::kernels {

#if defined(__x86_64__)
namespace baseline {
extern const CpuKernels table;
}
namespace avx2 {
extern const CpuKernels table;
}
namespace avxvnni {
extern const CpuKernels table;
}
namespace avx512 {
extern const CpuKernels table;
}
namespace avx512bf16 {
extern const CpuKernels table;
}
namespace amx {
extern const CpuKernels table;
}
#elif defined(__aarch64__)
namespace neon {
extern const CpuKernels table;
}
namespace neondot {
extern const CpuKernels table;
}
namespace neoni8mm {
extern const CpuKernels table;
}
#else
namespace baseline {
extern const CpuKernels table;
}
#endif

namespace {

#if defined(__x86_64__)

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

constexpr bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

// Register state the system restores (XCR0): 0x6 is SSE and AVX, 0xE0 the AVX-512 parts.
unsigned saved_state() {
  if (!has(cpuid(1, 0).ecx, bit_OSXSAVE)) return 0;
  unsigned low = 0;
  unsigned high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Below, what no kernels were compiled for is not asked (EXPERT_ISA_SETS).

// x86-64-v3.
[[maybe_unused]] bool machine_has_avx2() {
  const Registers one = cpuid(1, 0);
  const Registers seven = cpuid(7, 0);
  const Registers extended = cpuid(0x80000001U, 0);
  return has(saved_state(), 0x6U) && has(one.ecx, bit_AVX | bit_FMA | bit_F16C | bit_MOVBE) &&
         has(seven.ebx, bit_AVX2 | bit_BMI | bit_BMI2) && has(extended.ecx, bit_LZCNT);
}

#if defined(EXPERT_HAS_AVXVNNI)
bool machine_has_avxvnni() { return machine_has_avx2() && has(cpuid(7, 1).eax, 1U << 4); }
#endif

// x86-64-v4 with VNNI.
[[maybe_unused]] bool machine_has_avx512() {
  const Registers seven = cpuid(7, 0);
  return machine_has_avx2() && has(saved_state(), 0xE6U) &&
         has(seven.ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL) &&
         has(seven.ecx, bit_AVX512VNNI);
}

[[maybe_unused]] bool machine_has_pairs() { return machine_has_avx512() && has(cpuid(7, 1).eax, 1U << 5); }

#if defined(EXPERT_HAS_AMX)
// The tile unit. Its registers are 8 KiB that the system saves for a process only when asked to; it refuses where a
// thread's alternate signal stack could not hold them.
bool tile_unit_granted() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  static const bool granted = has(saved_state(), 0x600E6U) && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

// With products of bytes and of BF16: no processor has one without the other.
bool machine_has_amx() {
  constexpr unsigned kTiles = 1U << 24 | 1U << 25 | 1U << 22;
  return machine_has_pairs() && has(cpuid(7, 0).edx, kTiles) && tile_unit_granted();
}
#endif

#elif defined(__aarch64__) && defined(__linux__)

bool machine_has_dot_products() { return (getauxval(AT_HWCAP) & (1UL << 20)) != 0; }
bool machine_has_i8mm() { return machine_has_dot_products() && (getauxval(AT_HWCAP2) & (1UL << 13)) != 0; }

#elif defined(__aarch64__)

bool machine_has_dot_products() { return false; }
bool machine_has_i8mm() { return false; }

#endif

struct Available {
  const CpuKernels* tables[7] = {};

  Available() {
    const CpuKernels** next = tables;
#if defined(__x86_64__)
#if defined(EXPERT_HAS_AMX)
    if (machine_has_amx()) *next++ = &amx::table;
#endif
#if defined(EXPERT_HAS_AVX512BF16)
    if (machine_has_pairs()) *next++ = &avx512bf16::table;
#endif
#if defined(EXPERT_HAS_AVX512)
    if (machine_has_avx512()) *next++ = &avx512::table;
#endif
#if defined(EXPERT_HAS_AVXVNNI)
    if (machine_has_avxvnni()) *next++ = &avxvnni::table;
#endif
#if defined(EXPERT_HAS_AVX2)
    if (machine_has_avx2()) *next++ = &avx2::table;
#endif
    *next++ = &baseline::table;
#elif defined(__aarch64__)
    if (machine_has_i8mm()) *next++ = &neoni8mm::table;
    if (machine_has_dot_products()) *next++ = &neondot::table;
    *next++ = &neon::table;
#else
    *next++ = &baseline::table;
#endif
  }
};

}  // namespace

const CpuKernels* const* available_kernels() {
  static const Available available;
  return available.tables;
}

const CpuKernels* best_kernels() { return available_kernels()[0]; }

const CpuKernels* find_kernels(const char* isa) {
  for (const CpuKernels* const* table = available_kernels(); *table != nullptr; ++table) {
    if (strcmp((*table)->isa, isa) == 0) return *table;
  }
  return nullptr;
}

}  // namespace expert::kernels
