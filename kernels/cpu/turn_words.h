// Rows to lines: what packing does with every weight.
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

// Four rows of four words, `stride` bytes apart: to[i * 64 + r * 4] gets word i of row r.
inline void transpose_four(const unsigned char* from, int64_t stride, unsigned char* to) {
  const FourWords a = load_words(from), b = load_words(from + stride);
  const FourWords c = load_words(from + 2 * stride), d = load_words(from + 3 * stride);
  const FourWords ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const FourWords ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const FourWords cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const FourWords cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const FourWords turned[] = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) memcpy(to + i * 64, &turned[i], sizeof turned[i]);
}

// 16 rows of `words` words, `stride` bytes apart, become `words` lines of one word of each row.
inline void turn_words(const void* values, int64_t stride, int64_t words, unsigned char* to) {
  const auto* from = static_cast<const unsigned char*>(values);
  int64_t word = 0;
  for (; word + 4 <= words; word += 4) {
    for (int64_t r = 0; r < kPanelRows; r += 4) {
      transpose_four(from + r * stride + word * 4, stride, to + word * 64 + r * 4);
    }
  }
  for (; word < words; ++word) {
    for (int64_t r = 0; r < kPanelRows; ++r) memcpy(to + word * 64 + r * 4, from + r * stride + word * 4, 4);
  }
}

}  // namespace expert::kernels
