// The few words of CUDA that the kernels use. The tests build the same kernels with the host's compiler and an emulator
// of these words (tests/cuda/emulator), because no GPU was at hand when they were written.
#pragma once

#if defined(EXPERT_CUDA_EMULATOR)
#include "cuda/emulator/emulator.h"
#else
#define EXPERT_UNROLL _Pragma("unroll")
#define EXPERT_UNROLL_FOUR _Pragma("unroll 4")

namespace expert::kernels::cuda {

__device__ inline unsigned char* block_memory() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<unsigned char*>(memory);
}

}  // namespace expert::kernels::cuda
#endif

namespace expert::kernels::cuda {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

// Every lane gets the sum, or the largest, of all lanes.
__device__ inline float warp_sum(float value) {
  EXPERT_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ inline float warp_max(float value) {
  EXPERT_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// The sums of R rows of four outputs over the eight lanes that hold the same piece of eight lines. Each lane keeps one
// row, kept_row<R>(), in sums[0]: lanes give each other what the other keeps, so that R = 8 takes 28 exchanges, not 96.
// Which lane keeps a row changes nothing in the order of its sum.
template <int R>
__device__ inline void sum_lines(float (&sums)[R][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int kept = R;
  EXPERT_UNROLL
  for (int distance = 16; distance >= 4; distance /= 2) {
    const bool upper = (lane & distance) != 0;
    const int half = kept / 2;
    EXPERT_UNROLL
    for (int r = 0; r < (half > 0 ? half : 1); ++r) {
      EXPERT_UNROLL
      for (int o = 0; o < 4; ++o) {
        const float mine = half > 0 && upper ? sums[r + half][o] : sums[r][o];
        const float given = half > 0 && !upper ? sums[r + half][o] : sums[r][o];
        sums[r][o] = mine + __shfl_xor_sync(kAllLanes, given, distance);
      }
    }
    kept = half > 0 ? half : 1;
  }
}

template <int R>
__device__ inline int kept_row() {
  return static_cast<int>(threadIdx.x) % kWarpLanes / 4 * R / 8;
}
// Several lanes keep the same row where R is less than eight; one of them writes it.
template <int R>
__device__ inline bool writes_row() {
  return static_cast<int>(threadIdx.x) % kWarpLanes / 4 % (8 / R) == 0;
}

__device__ inline uint4 load_piece(const unsigned char* from) { return *reinterpret_cast<const uint4*>(from); }
__device__ inline float float_of(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline float low_half(uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ inline float high_half(uint32_t bits) { return __uint_as_float(bits & 0xFFFF0000U); }
__device__ inline uint32_t word_of(const uint4& piece, int i) {
  return i == 0 ? piece.x : i == 1 ? piece.y : i == 2 ? piece.z : piece.w;
}
__device__ inline uint32_t half_word(const unsigned char* from) { return *reinterpret_cast<const uint16_t*>(from); }

// formats.h is host code to nvcc; these say the same for one value.
__device__ inline uint16_t bf16_bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40U;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : rounded);
}

__device__ inline float int_four_zero(uint32_t scale_byte) {
  return kInt4FirstZero + kInt4ZeroStep * static_cast<float>(scale_byte & 7U);
}

// What a byte of scale means with the word of its output in the panel's head.
__device__ inline float scale_of_byte(Storage storage, uint32_t head, uint32_t byte) {
  const uint32_t kept = storage == Storage::int8 ? byte : byte & 0xF8U;
  return __uint_as_float((head & 0xFFFF0000U) + (kept << (16U + (head & 15U))));
}

}  // namespace expert::kernels::cuda
