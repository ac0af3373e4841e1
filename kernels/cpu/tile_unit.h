// The tile unit of AMX: what its kernels share.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/isa.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

// The memory operand of _tile_loadconfig; a register that is not set holds nothing.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int64_t tile_rows, int64_t row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    bytes_per_row[tile] = static_cast<uint16_t>(row_bytes);
  }
};

// The compiler does not know that tile loads read memory, and stores write it.
static inline __attribute__((always_inline)) void tile_memory() { __asm__ volatile("" ::: "memory"); }

// The intrinsic tells the compiler of the first eight bytes only (GCC 12): the others would never be written.
static inline __attribute__((always_inline)) void configure_tiles(const TileConfig& config) {
  __asm__ volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
