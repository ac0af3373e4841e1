// How an expert's factors are read into, and back from, the layout of kernels/factors.h.
#pragma once

#include <stdint.h>

#include "kernels/cpu/panels.h"
#include "kernels/factors.h"

namespace expert::kernels {

// How a value becomes a packed one: value * scale * row_scale[row], at F32, before the storage rounds to nearest even.
struct FactorScale {
  float scale = 1.0F;
  const float* row_scale = nullptr;  // of the first row that is packed; null: ones
};

// What unpacking gives, for tests and for whoever must read an expert back: out[k] = row[k], k < inputs (or rank).
void unpack_factor_row(Storage storage, const unsigned char* packed, int64_t inputs, int64_t row, float* out);
void unpack_factor_panel_row(Storage storage, const unsigned char* packed, int64_t rank, int64_t row, float* out);

}  // namespace expert::kernels
