// Rows of activations in codes of 8 bits as products of integers read them, and where such products go.
#pragma once

#include "kernels/cpu/dot.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

constexpr int64_t kPrefetchBytes = 4096;  // ahead of a panel read from memory

// A byte of scale per output as words.
EXPERT_INLINE Words scale_bytes(const unsigned char* bytes) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
#elif defined(__SSE2__)
  uint32_t word;
  __builtin_memcpy(&word, bytes, sizeof word);
  const __m128i zero = _mm_setzero_si128();
  const __m128i halves = _mm_unpacklo_epi8(_mm_cvtsi32_si128(static_cast<int>(word)), zero);
  return reinterpret_cast<Words>(_mm_unpacklo_epi16(halves, zero));
#else
  return Words{bytes[0], bytes[1], bytes[2], bytes[3]};
#endif
}

// Bytes of a group of a row of activations: those of kGroupCodeBytes that the steps of this set need.
template <class Dot>
constexpr int64_t kCodeBytes = Dot::kInputs == 4 ? kGroup : kGroupCodeBytes;

// One group of a row of activations: the words of its codes, its scale, and what takes the zero points away: for INT8,
// where they are all the same, an integer the sums start from, for INT4 minus the sum of the codes as a float.
struct RowGroup {
  const unsigned char* words;
  float scale;
  uint32_t correction;
};

template <class Dot>
EXPERT_INLINE RowGroup row_group(const unsigned char* row, int64_t group, int64_t groups) {
  RowGroup result;
  result.words = row + group * kCodeBytes<Dot>;
  __builtin_memcpy(&result.scale, row + groups * kGroupCodeBytes + group * 4, sizeof(float));
  __builtin_memcpy(&result.correction, row + groups * (kGroupCodeBytes + 4) + group * 4, sizeof(uint32_t));
  return result;
}

EXPERT_INLINE Words word(const unsigned char* words, int step) {
  uint32_t bits;
  __builtin_memcpy(&bits, words + step * 4, sizeof bits);
  return splat_words(bits);
}

EXPERT_INLINE const unsigned char* codes_of(const GemmArgs& a, int64_t row) {
  return a.prepared + row * quantised_row_bytes(a.inputs);
}

EXPERT_INLINE void put(const GemmArgs& a, int64_t row, int64_t n, Floats sum) {
  const Floats value = sum * splat(a.scale);
  float* y = a.y + row * a.y_stride + n;
  if (n + kLanes <= a.outputs) {
    store(y, a.accumulate ? load(y) + value : value);
    return;
  }
  float lanes[kLanes];
  store(lanes, value);
  for (int64_t i = 0; n + i < a.outputs; ++i) y[i] = a.accumulate ? y[i] + lanes[i] : lanes[i];
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
