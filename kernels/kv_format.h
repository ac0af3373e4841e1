// How keys and values lie in the KV cache, shared by the reference and the per-ISA kernels.
//
// A KV block holds kKvBlock tokens of one layer and kv head: the keys as one panel of 16 outputs (tokens) x head_dim
// inputs, then the values as panel_count(head_dim) panels of 16 outputs (dimensions) x 16 inputs (tokens). So both
// products of attention are those of packed weights (formats.h).
//   F32, BF16  the lines of formats.h
//   INT8       the lines of formats.h with codes 1 to 255, zero 128; 16 F32 scales, one per token, stand before the keys
//              and before the values
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/formats.h"

namespace expert::kernels {

enum class KvFormat : int { f32, bf16, int8 };

constexpr int64_t kv_scale_bytes(KvFormat format) { return format == KvFormat::int8 ? kKvBlock * 4 : 0; }

constexpr int64_t kv_panel_bytes(KvFormat format, int64_t inputs) {
  return format == KvFormat::f32 ? inputs * 64 : format == KvFormat::bf16 ? (inputs + 1) / 2 * 64 : (inputs + 3) / 4 * 64;
}

// Of one head in INT8: the kernels quantise on the stack.
constexpr int64_t kMostInt8HeadDim = 1024;

// Scales included.
constexpr int64_t kv_k_bytes(KvFormat format, int64_t head_dim) {
  return kv_scale_bytes(format) + kv_panel_bytes(format, head_dim);
}
constexpr int64_t kv_v_bytes(KvFormat format, int64_t head_dim) {
  return kv_scale_bytes(format) + panel_count(head_dim) * kv_panel_bytes(format, kKvBlock);
}

// x[i] ~ scale * out[i] with |out[i]| <= 127, rounded to nearest even; returns the scale. A vector too small for a
// normal scale becomes zeros; one that holds infinities or NaN gets a NaN for a scale, so that nothing hides them.
static inline float quantise_int8(const float* x, int64_t count, int8_t* out) {
  float most = 0;
  float poison = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    most = magnitude > most ? magnitude : most;
    poison += x[i] - x[i];
  }
  const float scale = most / 127.0F;
  const bool usable = scale >= 0x1p-126F && poison == 0;
  const float inverse = usable ? 127.0F / most : 0.0F;
  const float magic = 0x1.8p23F;
  for (int64_t i = 0; i < count; ++i) {
    const float rounded = usable ? (x[i] * inverse + magic) - magic : 0.0F;
    out[i] = static_cast<int8_t>(rounded);
  }
  return usable ? scale : poison;
}

}  // namespace expert::kernels
