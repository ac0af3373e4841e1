// Integer products of weight codes and activation codes. Every instruction set has its own way to many of them at once;
// all are exact, so all sets see the same sums.
//
// A step is one 32-bit word per output of unpacked weight codes against one word of a row's activation codes:
//   Quad  four inputs, bytes:           weights of 8 bits times signed activations
//   Pair  two inputs, 16-bit halves:    for sets without byte products that cannot overflow
// kWide: sums of 32 bits, with room for any bytes.
// Of four consecutive inputs, Pair takes 0 and 2 in one step and 1 and 3 in the next: cheap to unpack.
#pragma once

#include "kernels/cpu/simd.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

EXPERT_INLINE Words splat_words(uint32_t x) { return x - Words{}; }

// Two 16-bit products per lane. Weights up to 255, activations within 127: no sum of a group leaves 32 bits.
struct Pair {
  static constexpr int kInputs = 2;
  static constexpr bool kWide = true;
  typedef Ints Sum;

  EXPERT_INLINE Sum add(Sum sum, Words w, Words x) {
#if defined(__AVX512F__)
    return sum + reinterpret_cast<Ints>(_mm512_madd_epi16(reinterpret_cast<__m512i>(w), reinterpret_cast<__m512i>(x)));
#elif defined(__AVX2__)
    return sum + reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(w), reinterpret_cast<__m256i>(x)));
#elif defined(__SSE2__)
    return sum + reinterpret_cast<Ints>(_mm_madd_epi16(reinterpret_cast<__m128i>(w), reinterpret_cast<__m128i>(x)));
#else
    const Ints low = reinterpret_cast<Ints>(x << 16) >> 16;
    return sum + reinterpret_cast<Ints>(w & 0xFFFFU) * low +
           reinterpret_cast<Ints>(w >> 16) * (reinterpret_cast<Ints>(x) >> 16);
#endif
  }
  // For one row. As intrinsics, GCC computes the products of a group before it adds them, and runs out of registers: 1.2 times
  // the time. Several rows do better with those (0.95 to 0.99).
  EXPERT_INLINE Sum add_of_one(Sum sum, Words w, Words x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    Ints products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(w), "x"(x));
    return sum;
#else
    return add(sum, w, x);
#endif
  }
  EXPERT_INLINE Ints total(Sum sum) { return sum; }
};

#if defined(__AVX512VNNI__)

struct Quad {
  static constexpr int kInputs = 4;
  static constexpr bool kWide = true;
  typedef Ints Sum;
  EXPERT_INLINE Sum add(Sum sum, Words w, Words x) {
    return reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(w),
                                                      reinterpret_cast<__m512i>(x)));
  }
  EXPERT_INLINE Ints total(Sum sum) { return sum; }
};
typedef Quad Int8Dot;
typedef Quad Int4Dot;

#elif defined(__AVXVNNI__)

struct Quad {
  static constexpr int kInputs = 4;
  static constexpr bool kWide = true;
  typedef Ints Sum;
  EXPERT_INLINE Sum add(Sum sum, Words w, Words x) {
    return reinterpret_cast<Ints>(_mm256_dpbusd_avx_epi32(
        reinterpret_cast<__m256i>(sum), reinterpret_cast<__m256i>(w), reinterpret_cast<__m256i>(x)));
  }
  EXPERT_INLINE Ints total(Sum sum) { return sum; }
};
typedef Quad Int8Dot;
typedef Quad Int4Dot;

#elif defined(__AVX2__)

// Nibbles only: 8 steps of a group sum to at most 8 * 2 * 15 * 127 = 30,480, which 16 bits hold.
struct NibbleQuad {
  static constexpr int kInputs = 4;
  static constexpr bool kWide = false;
  typedef Ints Sum;  // 16-bit sums, two per lane
  EXPERT_INLINE Sum add(Sum sum, Words w, Words x) {
    // As intrinsics, GCC computes all products of a tile before it adds them, and runs out of registers.
    Ints products;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(w), "x"(x));
    return sum;
  }
  EXPERT_INLINE Ints total(Sum sum) {
    return reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(sum), _mm256_set1_epi16(1)));
  }
};
typedef Pair Int8Dot;  // bytes of 8 bits would overflow maddubs' 16-bit pairs
typedef NibbleQuad Int4Dot;

#elif defined(__ARM_FEATURE_MATMUL_INT8)

struct Quad {
  static constexpr int kInputs = 4;
  static constexpr bool kWide = true;
  typedef Ints Sum;
  EXPERT_INLINE Sum add(Sum sum, Words w, Words x) {
    return reinterpret_cast<Ints>(vusdotq_s32(reinterpret_cast<int32x4_t>(sum), reinterpret_cast<uint8x16_t>(w),
                                              reinterpret_cast<int8x16_t>(x)));
  }
  EXPERT_INLINE Ints total(Sum sum) { return sum; }
};
typedef Quad Int8Dot;
typedef Quad Int4Dot;

#elif defined(__ARM_FEATURE_DOTPROD)

// Both sides signed: INT8 codes are unpacked less 128, nibbles fit as they are.
struct Quad {
  static constexpr int kInputs = 4;
  static constexpr bool kWide = true;
  typedef Ints Sum;
  EXPERT_INLINE Sum add(Sum sum, Words w, Words x) {
    return reinterpret_cast<Ints>(vdotq_s32(reinterpret_cast<int32x4_t>(sum), reinterpret_cast<int8x16_t>(w),
                                            reinterpret_cast<int8x16_t>(x)));
  }
  EXPERT_INLINE Ints total(Sum sum) { return sum; }
};
#define EXPERT_SIGNED_DOT
typedef Quad Int8Dot;
typedef Quad Int4Dot;

#else

typedef Pair Int8Dot;
typedef Pair Int4Dot;

#endif

// How the lines of a format become steps. kZero is the zero point of the unpacked INT8 codes.
struct Int8Codes {
  static constexpr Storage kStorage = Storage::int8;
  typedef Int8Dot Dot;
  static constexpr int kLines = 8;  // of a group
  static constexpr int kSteps = 4 / Dot::kInputs;  // of a line
#if defined(EXPERT_SIGNED_DOT)
  static constexpr int32_t kZero = 0;
  static constexpr bool kAsStored = false;
#else
  static constexpr int32_t kZero = 128;
  static constexpr bool kAsStored = kSteps == 1;  // the lines are the steps
#endif

  EXPERT_INLINE void unpack(Words line, Words (&step)[kSteps]) {
    if constexpr (kSteps == 2) {
      step[0] = line & 0x00FF00FFU;
      step[1] = (line >> 8) & 0x00FF00FFU;
    } else {
#if defined(EXPERT_SIGNED_DOT)
      step[0] = line ^ 0x80808080U;
#else
      step[0] = line;
#endif
    }
  }
};

struct Int4Codes {
  static constexpr Storage kStorage = Storage::int4;
  typedef Int4Dot Dot;
  static constexpr int kLines = 4;
  static constexpr int kSteps = 8 / Dot::kInputs;
  static constexpr bool kAsStored = false;

  EXPERT_INLINE void unpack(Words line, Words (&step)[kSteps]) {
    if constexpr (kSteps == 4) {
      step[0] = line & 0x000F000FU;
      step[1] = (line >> 8) & 0x000F000FU;
      step[2] = (line >> 4) & 0x000F000FU;
      step[3] = (line >> 12) & 0x000F000FU;
    } else {
      step[0] = line & 0x0F0F0F0FU;
      step[1] = (line >> 4) & 0x0F0F0F0FU;
    }
  }
};

EXPERT_INLINE Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
