// Floats times F32 weights, and times BF16 weights where the instruction set has no products of BF16; rows of weights read
// back.
#include "kernels/cpu/gemm_rows.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

void gemm_floats(Storage storage, const GemmArgs& args) {
  if (storage == Storage::f32) return gemm_of<F32Panel>(args);
  GemmArgs rounded = args;
  rounded.x = reinterpret_cast<const float*>(args.prepared);
  rounded.x_stride = args.inputs;
  gemm_of<Bf16Panel>(rounded);
}

int64_t rounded_row_bytes(int64_t inputs) { return inputs * static_cast<int64_t>(sizeof(float)); }

void round_row(const float* x, InputRange part, unsigned char* out) {
  for (int64_t k = part.begin; k < part.end; ++k) {
    const float value = float_from_bf16(bf16_from_float(x[k]));
    __builtin_memcpy(out + k * static_cast<int64_t>(sizeof value), &value, sizeof value);
  }
}

namespace {

void unpack_quantised(Storage storage, const unsigned char* panel, int64_t inputs, int64_t lane, float* out) {
  uint32_t head;
  __builtin_memcpy(&head, panel + lane * 4, sizeof head);
  for (int64_t group = 0; group < group_count(inputs); ++group) {
    const uint32_t bits = unpack_scale(storage, head, panel[scales_at(storage, group) + lane]);
    const float scale = scale_of(storage, bits);
    const float zero = zero_of(storage, bits);
    const unsigned char* codes = panel + codes_at(storage, group) + lane * 4;
    float values[kGroup];
    for (int64_t i = 0; i < kGroup; ++i) {
      const int code = storage == Storage::int8 ? codes[i / 4 * 64 + i % 4]
                                                : codes[i / 8 * 64 + i % 4] >> (i / 4 % 2 * 4) & 15;
      values[i] = scale * (static_cast<float>(code) - zero);
    }
    const int64_t count = inputs - group * kGroup < kGroup ? inputs - group * kGroup : kGroup;
    for (int64_t i = 0; i < count; ++i) out[group * kGroup + i] = values[i];
  }
}

void unpack_narrow(const unsigned char* panel, int64_t inputs, int64_t lane, float* out) {
  uint32_t high[16];
  for (uint32_t code = 0; code < 16; ++code) high[code] = (code & 8U) << 28 | ((panel[lane] - (code & 7U)) & 127U) << 24;
  const unsigned char* codes = panel + narrow_head_bytes(inputs) + lane / 4 * 16 + lane % 4 * 2;
  for (int64_t k = 0; k < inputs; k += kNarrowInputs, codes += kNarrowUnitBytes) {
    for (int64_t i = 0; i < kNarrowInputs; ++i) {
      const int64_t at = i / 2 % 2 * 8 + i % 2;
      const uint32_t low = codes[64 + i / 4 * 64 + at];
      out[k + i] = float_from_bits(high[codes[at] >> (i / 4 * 4) & 15] | low << 16);
    }
  }
  const unsigned char* exception = panel + kNarrowBases;
  for (int64_t i = 0; i < most_exceptions(inputs); ++i, exception += 4) {
    uint32_t word;
    __builtin_memcpy(&word, exception, sizeof word);
    if (word == kNoException) return;
    const int64_t k = static_cast<int64_t>(word >> 13) * 2 + (word >> 8 & 1U);
    if ((word >> 9 & 15U) != static_cast<uint32_t>(lane) || k >= inputs) continue;
    out[k] = float_from_bits((bits_of(out[k]) & 0x00FF0000U) | (word & 0xFFU) << 24);
  }
}

}  // namespace

void unpack_row(Storage storage, const void* panels, int64_t inputs, int64_t row, float* out) {
  const unsigned char* panel =
      static_cast<const unsigned char*>(panels) + row / kPanelRows * panel_bytes(storage, inputs);
  if (storage == Storage::narrow_bf16) return unpack_narrow(panel, inputs, row % kPanelRows, out);
  if (is_quantised(storage)) return unpack_quantised(storage, panel, inputs, row % kPanelRows, out);
  const int64_t lane = row % kPanelRows * 4;
  for (int64_t k = 0; k < inputs; ++k) {
    if (storage == Storage::f32) {
      __builtin_memcpy(out + k, panel + k * 64 + lane, sizeof(float));
    } else {
      uint16_t bits;
      __builtin_memcpy(&bits, panel + k / 2 * 64 + lane + k % 2 * 2, sizeof bits);
      out[k] = float_from_bf16(bits);
    }
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
