// Sums over packed weights. A warp goes along one panel: eight lines at a time, 16 bytes per lane.
#pragma once

#include "kernels/cuda/args.h"
#include "kernels/cuda/dialect.h"

namespace expert::kernels::cuda {

// The rows of x a block of threads works on, kSumInputs inputs of each, in the form the weights are met in
// (kernels/reference: round_activations): F32, for BF16 weights rounded to it, for quantised ones whole numbers of 8 bits
// with one scale per group.
template <Storage S>
struct InputTile {
  static constexpr int kGroups = kSumInputs / static_cast<int>(kGroup);
  static constexpr int bytes(int rows) {
    return is_quantised(S) ? rows * (kSumInputs + kGroups * 4) : rows * kSumInputs * 4;
  }
  unsigned char* memory;
  int rows;

  __device__ float* floats(int row) const { return reinterpret_cast<float*>(memory) + row * kSumInputs; }
  __device__ signed char* codes(int row) const { return reinterpret_cast<signed char*>(memory) + row * kSumInputs; }
  __device__ float* scales(int row) const {
    return reinterpret_cast<float*>(memory + rows * kSumInputs) + row * kGroups;
  }
};

// One value of a matrix: its row `row`, column `col`.
__device__ inline float panel_value(Storage storage, const unsigned char* panels, int64_t cols, int64_t row,
                                    int64_t col) {
  const unsigned char* panel = panels + row / kPanelRows * panel_bytes(storage, cols);
  const int64_t lane = row % kPanelRows;
  if (storage == Storage::f32) return *reinterpret_cast<const float*>(panel + col * 64 + lane * 4);
  if (storage == Storage::bf16) return float_of(half_word(panel + col / 2 * 64 + lane * 4 + col % 2 * 2) << 16);
  const int64_t group = col / kGroup;
  const int64_t at = col % kGroup;
  const uint32_t byte = panel[scales_at(storage, group) + lane];
  const float scale = scale_of_byte(storage, *reinterpret_cast<const uint32_t*>(panel + lane * 4), byte);
  const unsigned char* codes = panel + codes_at(storage, group);
  if (storage == Storage::int8) {
    return scale * (static_cast<float>(codes[at / 4 * 64 + lane * 4 + at % 4]) - kInt8Zero);
  }
  const uint32_t both = codes[at / 8 * 64 + lane * 4 + at % 4];
  const uint32_t code = at % 8 < 4 ? both & 15U : both >> 4;
  return scale * (static_cast<float>(code) - int_four_zero(byte));
}

// sums[r][o] += the products of `count` inputs from `first` on (a multiple of kSumInputs) with this lane's four
// outputs, those of them that stand in its lines.
template <Storage S, int R>
__device__ inline void add_products(const unsigned char* panel, int64_t first, int64_t count, const InputTile<S>& x,
                                    float (&sums)[R][4]) {
  constexpr int kInputsPerLine = S == Storage::f32 ? 1 : 2;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int lines = static_cast<int>((count + kInputsPerLine - 1) / kInputsPerLine);
  const unsigned char* from = panel + first / kInputsPerLine * 64 + lane % 4 * 16;
  EXPERT_UNROLL_FOUR
  for (int line = lane / 4; line < lines; line += 8) {
    const uint4 piece = load_piece(from + line * 64);
    EXPERT_UNROLL
    for (int r = 0; r < R; ++r) {
      const float* row = x.floats(r) + line * kInputsPerLine;
      EXPERT_UNROLL
      for (int o = 0; o < 4; ++o) {
        const uint32_t word = word_of(piece, o);
        if (S == Storage::f32) {
          sums[r][o] = fmaf(row[0], float_of(word), sums[r][o]);
        } else {
          sums[r][o] = fmaf(row[1], high_half(word), fmaf(row[0], low_half(word), sums[r][o]));
        }
      }
    }
  }
}

// The bytes of scale of this lane's four outputs in one group.
__device__ inline uint32_t load_scales(const unsigned char* from) { return *reinterpret_cast<const uint32_t*>(from); }
__device__ inline uint32_t byte_of(uint32_t bytes, int i) { return bytes >> (8 * i) & 0xFFU; }

// Eight lines are one group of 32 inputs.
template <int R>
__device__ inline void add_products(const unsigned char* panel, int64_t first, int64_t count,
                                    const InputTile<Storage::int8>& x, float (&sums)[R][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int groups = static_cast<int>(group_count(count));
  const uint4 heads = load_piece(panel + lane % 4 * 16);
  EXPERT_UNROLL_FOUR
  for (int group = 0; group < groups; ++group) {
    const int64_t g = first / kGroup + group;
    const uint4 piece = load_piece(panel + codes_at(Storage::int8, g) + lane * 16);
    const uint32_t scales = load_scales(panel + scales_at(Storage::int8, g) + lane % 4 * 4);
    EXPERT_UNROLL
    for (int r = 0; r < R; ++r) {
      const int codes = *reinterpret_cast<const int*>(x.codes(r) + group * kGroup + lane / 4 * 4);
      const float scale = x.scales(r)[group];
      EXPERT_UNROLL
      for (int o = 0; o < 4; ++o) {
        const int dot = __dp4a(static_cast<int>(word_of(piece, o) ^ 0x80808080U), codes, 0);
        const float weight_scale = scale_of_byte(Storage::int8, word_of(heads, o), byte_of(scales, o));
        sums[r][o] = fmaf(static_cast<float>(dot), weight_scale * scale, sums[r][o]);
      }
    }
  }
}

// Eight lines are two groups of 32 inputs; the second one may be missing at the end.
template <int R>
__device__ inline void add_products(const unsigned char* panel, int64_t first, int64_t count,
                                    const InputTile<Storage::int4>& x, float (&sums)[R][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int line = lane / 4;
  const int groups = static_cast<int>(group_count(count));
  const uint4 heads = load_piece(panel + lane % 4 * 16);
  EXPERT_UNROLL_FOUR
  for (int group = line / 4; group < groups; group += 2) {
    const int64_t g = first / kGroup + group;
    const uint4 piece = load_piece(panel + codes_at(Storage::int4, g) + line % 4 * 64 + lane % 4 * 16);
    const uint32_t scales = load_scales(panel + scales_at(Storage::int4, g) + lane % 4 * 4);
    EXPERT_UNROLL
    for (int r = 0; r < R; ++r) {
      const int2 codes = *reinterpret_cast<const int2*>(x.codes(r) + group * kGroup + line % 4 * 8);
      const float scale = x.scales(r)[group];
      const auto sum = static_cast<float>(__dp4a(0x01010101, codes.x, __dp4a(0x01010101, codes.y, 0)));
      EXPERT_UNROLL
      for (int o = 0; o < 4; ++o) {
        const uint32_t word = word_of(piece, o);
        const int low = static_cast<int>(word & 0x0F0F0F0FU);
        const int high = static_cast<int>((word >> 4) & 0x0F0F0F0FU);
        const auto dot = static_cast<float>(__dp4a(low, codes.x, __dp4a(high, codes.y, 0)));
        const float exact = fmaf(-int_four_zero(byte_of(scales, o)), sum, dot);
        const float weight_scale = scale_of_byte(Storage::int4, word_of(heads, o), byte_of(scales, o));
        sums[r][o] = fmaf(exact, weight_scale * scale, sums[r][o]);
      }
    }
  }
}

}  // namespace expert::kernels::cuda
