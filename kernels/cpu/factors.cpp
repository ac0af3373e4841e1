#include "kernels/cpu/factors.h"

#include <string.h>

namespace expert::kernels {

namespace {

float half_at(const unsigned char* from) {
  uint16_t bits;
  memcpy(&bits, from, sizeof bits);
  return float_from_bf16(bits);
}

// Value `value` (0 to 31) of a line of narrow lines behind a head.
float narrow_at(const unsigned char* head, int64_t head_bytes, int64_t line, int64_t value) {
  const unsigned char* unit = head + head_bytes + line / 4 * kNarrowUnitBytes;
  const int64_t at = value / 8 * 16 + line % 2 * 8 + value % 8;
  const int code = unit[at] >> (line % 4 / 2 * 4) & 15;
  const int exponent = (code & 7) == 7 ? 0 : head[0] - (code & 7);
  const int high = (code & 8) << 4 | exponent;
  return float_from_bf16(static_cast<uint16_t>(high << 8 | unit[64 + line % 4 / 2 * 64 + at]));
}

// Calls put(index, value) for the values that are too small for codes.
template <class Put>
void for_each_small(const unsigned char* head, const Put& put) {
  for (int i = 0; i < head[1]; ++i) {
    uint16_t small[2];
    memcpy(small, head + 4 + 4 * i, sizeof small);
    put(small[0], float_from_bf16(small[1]));
  }
}

}  // namespace

void unpack_factor_row(Storage storage, const unsigned char* packed, int64_t inputs, int64_t row, float* out) {
  const unsigned char* from = packed + row * factor_row_bytes(storage, inputs);
  if (storage == Storage::narrow_bf16) {
    for (int64_t k = 0; k < inputs; ++k) {
      out[k] = narrow_at(from, kNarrowRowHead, k / 32, k % 16 * 2 + k % 32 / 16);
    }
    return for_each_small(from, [&](int64_t k, float value) { out[k] = value; });
  }
  for (int64_t k = 0; k < inputs; ++k) {
    if (storage == Storage::f32) {
      memcpy(out + k, from + k * 4, sizeof(float));
    } else {
      out[k] = half_at(from + k / 32 * 64 + k % 16 * 4 + k % 32 / 16 * 2);
    }
  }
}

void unpack_factor_panel_row(Storage storage, const unsigned char* packed, int64_t rank, int64_t row, float* out) {
  const unsigned char* panel = packed + row / kPanelRows * factor_panel_bytes(storage, rank);
  const int64_t lane = row % kPanelRows;
  if (storage == Storage::narrow_bf16) {
    for (int64_t k = 0; k < rank; ++k) out[k] = narrow_at(panel, narrow_panel_head(rank), k / 2, lane * 2 + k % 2);
    return for_each_small(panel, [&](int64_t index, float value) {
      if (index % kPanelRows == lane) out[index / kPanelRows] = value;
    });
  }
  for (int64_t k = 0; k < rank; ++k) {
    if (storage == Storage::f32) {
      memcpy(out + k, panel + k * 64 + lane * 4, sizeof(float));
    } else if (k + 1 == rank && rank % 2 != 0) {
      out[k] = half_at(panel + k * 32 + lane * 2);
    } else {
      out[k] = half_at(panel + k / 2 * 64 + lane * 4 + k % 2 * 2);
    }
  }
}

}  // namespace expert::kernels
