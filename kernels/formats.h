// Number formats and the packed weight layout, shared by the reference and the per-ISA kernels.
//
// A packed matrix W [outputs, inputs] is a sequence of panels of kPanelRows outputs, zero-padded in the last one. A
// panel is a sequence of 64-byte lines, one after the other along the inputs:
//   F32   one line = 16 outputs x 1 input
//   BF16  one line = 16 outputs x 2 inputs: 32-bit lane r holds input k in its low half and k + 1 in its high half
//   INT8  one line = 16 outputs x 4 inputs: byte i of lane r holds the code of input k + i
//   INT4  one line = 16 outputs x 8 inputs: byte i of lane r holds k + i in its low nibble, k + 4 + i in its high one
// Quantised inputs come in groups of 32 (the last one padded with zeros). An output's group has one scale, a BF16 number,
// and its weights are scale * (code - zero):
//   INT8  codes 1 to 255, zero 128
//   INT4  codes 0 to 15, zero between 5.5 and 9 in halves; the scale has four bits of mantissa
// The scales of an output lie close together, so its panel's head, a line, has a word for each output, base << 16 | shift, and
// each group a byte of scale per output:
//   INT8  the scale's bits are base + (byte << shift)
//   INT4  base + ((byte & 0xF8) << shift), and the byte's three low bits are the zero point's
// Scales that do not go with the shift that their output needs are rounded to those that do (kernels/cpu/panels.h). A unit of
// four groups is a line of their scales, then the lines of all four; a unit cut short ends after its last group's.
// Narrow BF16 holds the same values in 12 bits each: a head, then units of 4 BF16 lines (8 inputs). The high byte of a value
// is its sign and seven bits of its exponent; of most values of a row these lie between the row's base and seven below.
// Head: the rows' bases, 16 bytes; then the exceptions, each a word of line << 13 | value << 8 | high byte (value: 0 to 31
// within the line), ascending, ended by kNoException; zeros to a whole line.
// Unit: 64 bytes of codes (sign << 3 | base - seven bits; anything for an exception), then 128 low bytes. Byte 16 g + i of
// the codes is of value 8 g + i, i < 8, of line 0 in its low half and of line 2 in its high half; byte 16 g + 8 + i of
// lines 1 and 3. The low bytes stand likewise, those of lines 0 and 1 in the first 64 bytes. So a code looked up, added to the
// base and interleaved with the low bytes gives lines.
// One row of activations and many rows therefore sum the same products in the same order.
// Activations meet weights in the precision of those: F32, BF16, or 8 bits with a scale per group (reference/reference.h:
// round_activations).
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

constexpr int64_t kGroup = 32;  // inputs that share a scale, of weights and of activations

enum class Storage : int { f32, bf16, int8, int4, narrow_bf16 };  // of packed weights; F32 and the two of BF16 also of factors

// What a product sees: narrow BF16 is BF16.
constexpr Storage values_of(Storage storage) { return storage == Storage::narrow_bf16 ? Storage::bf16 : storage; }

constexpr bool is_quantised(Storage storage) { return storage == Storage::int8 || storage == Storage::int4; }

// Inputs [begin, end) of a row: whole groups, but for its last.
struct InputRange {
  int64_t begin;
  int64_t end;
};

constexpr int64_t group_count(int64_t inputs) { return (inputs + kGroup - 1) / kGroup; }
// Bytes of the codes of one group in one panel.
constexpr int64_t group_bytes(Storage storage) { return kGroup * kPanelRows / (storage == Storage::int4 ? 2 : 1); }
// Where in a panel the scales and the codes of a group stand, `bytes` of codes each.
constexpr int64_t kScaleGroups = 4;  // that share a line of scales
constexpr int64_t grouped_scales_at(int64_t bytes, int64_t group) {
  return 64 + group / kScaleGroups * (64 + kScaleGroups * bytes) + group % kScaleGroups * kPanelRows;
}
constexpr int64_t grouped_codes_at(int64_t bytes, int64_t group) {
  return 128 + group / kScaleGroups * (64 + kScaleGroups * bytes) + group % kScaleGroups * bytes;
}
constexpr int64_t grouped_panel_bytes(int64_t bytes, int64_t groups) {
  return 64 + (groups + kScaleGroups - 1) / kScaleGroups * 64 + groups * bytes;
}
constexpr int64_t scales_at(Storage storage, int64_t group) { return grouped_scales_at(group_bytes(storage), group); }
constexpr int64_t codes_at(Storage storage, int64_t group) { return grouped_codes_at(group_bytes(storage), group); }

constexpr int64_t panel_count(int64_t outputs) { return (outputs + kPanelRows - 1) / kPanelRows; }

constexpr int64_t kNarrowInputs = 8;      // of a unit; narrow matrices have a multiple of them
constexpr int64_t kMostNarrowInputs = 65528;  // packing counts them in 16 bits
constexpr int64_t kNarrowUnitBytes = 192;
constexpr uint32_t kNoException = 0xFFFFFFFFU;
constexpr int64_t kNarrowBases = 16;      // bytes before the exceptions
// Exceptions that a panel has room for: of one value in 512. Weights whose exponents lie further apart stay BF16.
constexpr int64_t most_exceptions(int64_t inputs) { return (inputs + 31) / 32; }
constexpr int64_t narrow_head_bytes(int64_t inputs) {
  return (kNarrowBases + 4 * (most_exceptions(inputs) + 1) + 63) / 64 * 64;
}

// Bytes of one panel over `inputs` inputs.
constexpr int64_t panel_bytes(Storage storage, int64_t inputs) {
  if (storage == Storage::narrow_bf16) return narrow_head_bytes(inputs) + inputs / kNarrowInputs * kNarrowUnitBytes;
  if (is_quantised(storage)) return grouped_panel_bytes(group_bytes(storage), group_count(inputs));
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

// The zero point that goes with a quantised group's scale, and the scale: of 16 bits, INT4's with the zero point in the low
// three, and of a byte with the word of its output in the panel's head.
constexpr float kInt8Zero = 128.0F;
constexpr float kInt4FirstZero = 5.5F;
constexpr float kInt4ZeroStep = 0.5F;
constexpr int kInt4Zeros = 8;
// Scales that are tried for a group's weights, as steps of the scale's stored bits around the one whose range just holds
// them. Groups whose largest weight is below kLeastQuantised count as zeros: scale 0.
constexpr uint32_t kInt8ScaleTries = 15;
constexpr uint32_t kInt8ScalesBelow = 11;
constexpr uint32_t kInt4ScaleTries = 8;
constexpr uint32_t kInt4ScalesBelow = 5;
constexpr float kLeastQuantised = 0x1p-100F;
static inline float zero_of(Storage storage, uint32_t scale) {
  return storage == Storage::int8 ? kInt8Zero : kInt4FirstZero + kInt4ZeroStep * static_cast<float>(scale & 7U);
}
constexpr uint32_t kInt4ScaleMask = 0xFFF8U;
static inline float scale_of(Storage storage, uint32_t scale) {
  return float_from_bits((storage == Storage::int8 ? scale : scale & kInt4ScaleMask) << 16);
}
static inline uint32_t unpack_scale(Storage storage, uint32_t head, uint32_t byte) {
  const uint32_t shift = head & 15U;
  if (storage == Storage::int8) return (head >> 16) + (byte << shift);
  return (head >> 16) + ((byte & 0xF8U) << shift) + (byte & 7U);
}

// Exact. A subnormal is read with the exponent of the least normal number, 2^-14, which is taken away again. Masks
// instead of branches, so that loops become vectors.
static inline float float_from_f16(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7FFFU) << 13;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t is_special = 0U - static_cast<uint32_t>(magnitude >= 31U << 23);  // infinity or NaN
  const uint32_t is_subnormal = 0U - static_cast<uint32_t>(magnitude < 1U << 23);
  const uint32_t wide = magnitude + (112U << 23) + (is_special & (112U << 23)) + (is_subnormal & (1U << 23));
  const float value = float_from_bits(wide) - float_from_bits(is_subnormal & (113U << 23));
  return float_from_bits(sign | bits_of(value));
}

}  // namespace expert::kernels
