// Rows to lines: what packing does with every weight, and a product of many rows with its activations.
#pragma once

#include <stdint.h>
#include <string.h>

#include "kernels/formats.h"

namespace expert::kernels {

using FourWords = uint32_t __attribute__((vector_size(16)));

inline FourWords load_words(const void* from) {
  FourWords words;
  memcpy(&words, from, sizeof words);
  return words;
}

// Four rows of four words, `stride` bytes apart: to[i * to_stride + r * 4] gets word i of row r.
inline void transpose_four(const unsigned char* from, int64_t stride, unsigned char* to, int64_t to_stride) {
  const FourWords a = load_words(from), b = load_words(from + stride);
  const FourWords c = load_words(from + 2 * stride), d = load_words(from + 3 * stride);
  const FourWords ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const FourWords ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const FourWords cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const FourWords cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const FourWords turned[] = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) memcpy(to + i * to_stride, &turned[i], sizeof turned[i]);
}

// `Rows` rows of `words` words, `stride` bytes apart, become `words` lines of one word of each row.
template <int Rows>
inline void turn_words(const void* values, int64_t stride, int64_t words, unsigned char* to) {
  constexpr int64_t kLine = Rows * 4;
  constexpr int64_t kFours = Rows / 4 * 4;
  const auto* from = static_cast<const unsigned char*>(values);
  int64_t word = 0;
  for (; word + 4 <= words; word += 4) {
    for (int64_t r = 0; r < kFours; r += 4) {
      transpose_four(from + r * stride + word * 4, stride, to + word * kLine + r * 4, kLine);
    }
  }
  for (int64_t i = 0; i < words; ++i) {  // the rest, which with a multiple of four rows are the last words only
    for (int64_t r = i < word ? kFours : 0; r < Rows; ++r) memcpy(to + i * kLine + r * 4, from + r * stride + i * 4, 4);
  }
}

}  // namespace expert::kernels
