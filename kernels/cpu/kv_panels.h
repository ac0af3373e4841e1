// The three formats of the KV cache as panels a tile can be multiplied with (tile.h).
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

// GCC 12 converts bytes one by one where __builtin_convertvector asks for it.
EXPERT_INLINE Floats load_int8(const unsigned char* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m512i numbers = _mm512_maskz_cvtepi8_epi32(0xFFFF, bytes);  // masked: GCC bug 105593
  return __builtin_convertvector(reinterpret_cast<Ints>(numbers), Floats);
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif defined(__SSE2__)
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  const __m128i bytes = _mm_cvtsi32_si128(four);
  const __m128i halves = _mm_unpacklo_epi8(bytes, bytes);
  return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(halves, halves), 24));
#else
  typedef int8_t SmallInts __attribute__((vector_size(kLanes)));
  SmallInts bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
#endif
}

// Sums of whole numbers times activations; the scales are applied by whoever knows whose they are.
struct Int8Kv {
  static constexpr KvFormat kFormat = KvFormat::int8;
  static constexpr int kTileRows = kKvTileRows<Bf16Panel>;

  template <int R, int P, class Prefetch>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs, const Prefetch& prefetch) {
    constexpr int64_t kInputsOfALine = 64 / kPanelRows;
    for (int64_t k = 0; k < inputs; ++k) {
      if (k % kInputsOfALine == 0) prefetch.reach(k * kPanelRows);
      multiply_input<R, P>(
          tile, x + k, x_stride, [&](int v) __attribute__((always_inline)) {
            return load_int8(line[v / kPanelVectors] + k * kPanelRows + v % kPanelVectors * kLanes);
          });
    }
  }
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

// Of a block of values, where its panels lie one behind the other: eight are a head of 128. Not in INT8, which is slower so.
template <class Kv, int R>
constexpr int kAllPanels = Kv::kFormat != KvFormat::int8 && R * 8 * kPanelVectors <= kSumRegisters ? 8 : 0;

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
