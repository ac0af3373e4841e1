// Number formats and the packed weight layout, shared by the reference and the per-ISA kernels.
//
// A packed matrix W [outputs, inputs] is a sequence of panels of kPanelRows outputs, zero-padded in the last one. A
// panel is a sequence of 64-byte lines, one after the other along the inputs:
//   F32   one line = 16 outputs x 1 input
//   BF16  one line = 16 outputs x 2 inputs: 32-bit lane r holds input k in its low half and k + 1 in its high half
// One row of activations and many rows therefore sum the same products in the same order.
// Everything here has internal linkage: files built for one instruction set must not lend code to the others.
#pragma once

#include <stdint.h>

namespace expert::kernels {

constexpr int64_t kPanelRows = 16;
// Sums over inputs are cut here: each block starts at zero and is then added to the running total.
constexpr int64_t kInputBlock = 512;
// Tokens per KV block, and per softmax tile and position split of streamed attention (absolute positions).
constexpr int64_t kKvBlock = 16;
constexpr int64_t kAttentionTile = 64;
constexpr int64_t kAttentionSplit = 1024;

enum class Storage : int { f32, bf16 };  // of packed weights and of the KV cache

constexpr int64_t panel_count(int64_t outputs) { return (outputs + kPanelRows - 1) / kPanelRows; }

// Bytes of one panel over `inputs` inputs.
constexpr int64_t panel_bytes(Storage storage, int64_t inputs) {
  return storage == Storage::f32 ? inputs * 64 : (inputs + 1) / 2 * 64;
}

static inline float float_from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float float_from_bf16(uint16_t bits) { return float_from_bits(static_cast<uint32_t>(bits) << 16); }

// Round to nearest, ties to even; a NaN stays a NaN (made quiet, sign kept).
static inline uint16_t bf16_from_float(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40U;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : rounded);
}

// Exact. Subnormals are scaled by a multiplication with 2^-24.
static inline float float_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1FU;
  const uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 0xFFU : exponent + 112;
  return float_from_bits(sign | (wide << 23) | (mantissa << 13));
}

}  // namespace expert::kernels
