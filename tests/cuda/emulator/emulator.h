// The words of CUDA that the kernels use, for the host's compiler: tests only. The threads of a block are fibers that
// run until they meet a barrier or a shuffle, one block after the other.
//
// What this shows: indices, order of sums, barriers that are missing or not met by all, reads beyond memory (built with
// AddressSanitizer). What it does not show: speed, and anything a real device does otherwise.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPERT_UNROLL
#define EXPERT_UNROLL_FOUR
#define __device__
#define __global__
#define __launch_bounds__(...)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) int2 {
  int x, y;
};

namespace expert::cuda_emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Here {
  Index thread;
  Index block;
};
extern constinit thread_local const Here* running;  // the thread of the device that runs
inline const Here& here() { return *running; }

void block_barrier();
void warp_barrier();
uint32_t exchange(uint32_t value, int distance);  // with lane ^ distance
unsigned char* block_memory();

}  // namespace expert::cuda_emulator

#define threadIdx (::expert::cuda_emulator::here().thread)
#define blockIdx (::expert::cuda_emulator::here().block)

inline float __uint_as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<int8_t>(static_cast<uint32_t>(a) >> (8 * i)) * static_cast<int8_t>(static_cast<uint32_t>(b) >> (8 * i));
  }
  return sum;
}
inline void __syncthreads() { ::expert::cuda_emulator::block_barrier(); }
inline void __syncwarp() { ::expert::cuda_emulator::warp_barrier(); }
inline float __shfl_xor_sync(unsigned, float value, int distance) {
  return __uint_as_float(::expert::cuda_emulator::exchange(__float_as_uint(value), distance));
}

namespace expert::kernels::cuda {
using ::expert::cuda_emulator::block_memory;
}
