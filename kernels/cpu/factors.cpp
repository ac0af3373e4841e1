#include "kernels/cpu/factors.h"

#include <string.h>

namespace expert::kernels {

namespace {

float half_at(const unsigned char* from) {
  uint16_t bits;
  memcpy(&bits, from, sizeof bits);
  return float_from_bf16(bits);
}

}  // namespace

void unpack_factor_row(Storage storage, const unsigned char* packed, int64_t inputs, int64_t row, float* out) {
  const unsigned char* from = packed + row * factor_row_bytes(storage, inputs);
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
