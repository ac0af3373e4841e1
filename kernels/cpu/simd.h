// Vectors of the instruction set a file is compiled for. Operators come from the compiler's vector extension; products
// and sums are fused only where fma() says so (-ffp-contract=off), so that one set always gives the same bits.
#pragma once

#include "kernels/cpu/isa.h"

#if defined(__SSE2__)
#pragma GCC diagnostic push
#if !defined(__clang__)  // GCC bug 105593: it takes what the intrinsics mean to leave open for a mistake
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kPanelVectors = static_cast<int>(kPanelRows) / kLanes;

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));

#define EXPERT_INLINE static inline __attribute__((always_inline))

EXPERT_INLINE Floats load(const float* p) {
  Floats v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

EXPERT_INLINE Words load_words(const unsigned char* p) {
  Words v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// Asks for lines that will be written. Other cores have read what stood there, and give them back one by one otherwise.
EXPERT_INLINE void claim_lines(const unsigned char* first, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(first + at, 1);
}

EXPERT_INLINE void store(float* p, Floats v) { __builtin_memcpy(p, &v, sizeof v); }
EXPERT_INLINE Floats splat(float x) { return x - Floats{}; }

// a * b + c
EXPERT_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

EXPERT_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }

// Lane i gets lane i ^ width.
template <int width, class Vector>
EXPERT_INLINE Vector swap_lanes(Vector v) {
#define EXPERT_PAIR(i) (i) ^ width, ((i) + 1) ^ width
#define EXPERT_FOUR(i) EXPERT_PAIR(i), EXPERT_PAIR((i) + 2)
  if constexpr (kLanes == 4) {
    return __builtin_shufflevector(v, v, EXPERT_FOUR(0));
#if defined(__AVX512F__)
  } else {
    return __builtin_shufflevector(v, v, EXPERT_FOUR(0), EXPERT_FOUR(4), EXPERT_FOUR(8), EXPERT_FOUR(12));
#elif defined(__AVX2__)
  } else {
    return __builtin_shufflevector(v, v, EXPERT_FOUR(0), EXPERT_FOUR(4));
#endif
  }
#undef EXPERT_FOUR
#undef EXPERT_PAIR
}

// The lanes of one vector, always combined in the same order: halves, halves of halves, and so on.
template <class Vector, class Combine>
EXPERT_INLINE Vector fold_lanes(Vector v, const Combine& combine) {
  if constexpr (kLanes > 8) v = combine(v, swap_lanes<8>(v));
  if constexpr (kLanes > 4) v = combine(v, swap_lanes<4>(v));
  v = combine(v, swap_lanes<2>(v));
  return combine(v, swap_lanes<1>(v));
}

EXPERT_INLINE float sum_lanes(Floats v) {
  return fold_lanes(v, [](Floats a, Floats b) __attribute__((always_inline)) { return a + b; })[0];
}
EXPERT_INLINE int32_t sum_lanes(Ints v) {
  return fold_lanes(v, [](Ints a, Ints b) __attribute__((always_inline)) { return a + b; })[0];
}
EXPERT_INLINE float max_lanes(Floats v) {
  return fold_lanes(v, [](Floats a, Floats b) __attribute__((always_inline)) { return max(a, b); })[0];
}

// exp(x) within 2 ulp; overflows to infinity, underflows through the subnormals to zero, keeps NaN.
// exp(x) = 2^n exp(r) with n = round(x / ln 2), |r| <= ln 2 / 2; exp(r) by its Taylor-like minimax polynomial of degree
// 6 (coefficients of the Cephes library's expf). 2^n is applied in two factors, since n leaves the exponent's range.
EXPERT_INLINE Floats exp(Floats x) {
  const Floats low = splat(-105.0F);
  const Floats high = splat(89.0F);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Floats magic = splat(0x1.8p23F);
  const Floats shifted = fma(x, splat(0x1.715476p0F), magic);
  const Floats n = shifted - magic;
  Floats r = fma(n, splat(-0.693359375F), x);
  r = fma(n, splat(2.12194440e-4F), r);
  Floats p = splat(1.9875691500e-4F);
  p = fma(p, r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = fma(p, r * r, r) + splat(1.0F);
  const Ints exponent = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(magic);
  const Ints half = exponent >> 1;
  const Floats first = reinterpret_cast<Floats>((half + 127) << 23);
  const Floats second = reinterpret_cast<Floats>((exponent - half + 127) << 23);
  return p * first * second;
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
