// Keys and values in F32 and BF16 as panels a tile can be multiplied with (tile.h).
#pragma once

#include "kernels/cpu/tile.h"
#include "kernels/kv_format.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

// Most rows of a tile: on the widest registers six rows times four panels use as many of them as twelve rows times two,
// with fewer loads and half the code.
template <class Panel>
constexpr int kKvTileRows = Panel::kTileRows < 6 ? Panel::kTileRows : 6;

struct F32Kv : F32Panel {
  static constexpr KvFormat kFormat = KvFormat::f32;
  static constexpr int kTileRows = kKvTileRows<F32Panel>;
};

struct Bf16Kv : Bf16Panel {
  static constexpr KvFormat kFormat = KvFormat::bf16;
  static constexpr int kTileRows = kKvTileRows<Bf16Panel>;
};

// Panels side by side for R rows: as many chains of additions as the registers hold, or few rows wait for their own.
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int kSumRegisters = 24;
#else
constexpr int kSumRegisters = 12;
#endif

template <int R>
constexpr int panels_at_once() {
  return R * 4 * kPanelVectors <= kSumRegisters ? 4 : R * 2 * kPanelVectors <= kSumRegisters ? 2 : 1;
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
