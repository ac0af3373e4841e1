// Repacking of row-major factors into the layout of kernels/factors.h. Plain code, run once per expert.
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

// Packs `rows` rows of `source` [rows, inputs] as consecutive rows of A.
void pack_factor_rows(Source type, const void* source, int64_t rows, int64_t inputs, FactorScale scale, Storage storage,
                      unsigned char* to);

// Packs `rows` rows of `source` [rows, rank] as consecutive whole panels of B; rows missing in the last one become
// zeros.
void pack_factor_panels(Source type, const void* source, int64_t rows, int64_t rank, FactorScale scale, Storage storage,
                        unsigned char* to);

// What unpacking gives, for tests and for whoever must read an expert back: out[k] = row[k], k < inputs (or rank).
void unpack_factor_row(Storage storage, const unsigned char* packed, int64_t inputs, int64_t row, float* out);
void unpack_factor_panel_row(Storage storage, const unsigned char* packed, int64_t rank, int64_t row, float* out);

}  // namespace expert::kernels
