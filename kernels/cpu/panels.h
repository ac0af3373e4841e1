// Repacking of row-major weights into panels (kernels/formats.h). Plain code, run once per matrix.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/formats.h"

namespace expert::kernels {

enum class Source : int { f32, f16, bf16 };

// Packs `rows` rows of `source` [rows, inputs] into consecutive whole panels; rows missing in the last one become
// zeros. BF16 output rounds to nearest even. `source` needs no alignment.
void pack_panels(Source type, const void* source, int64_t rows, int64_t inputs, Storage storage, unsigned char* panels);

// A BF16 panel of whole units as a narrow one; false where its exponents lie too far apart, and `narrow` is of no use then.
bool narrow_panel(const unsigned char* panel, int64_t inputs, unsigned char* narrow);

// The same for INT8 and INT4; `quantise` is CpuKernels::quantise_weights or the reference's.
typedef void (*QuantiseWeights)(Storage storage, const float* w, uint16_t* scales, unsigned char* codes);
void pack_quantised_panels(Source type, const void* source, int64_t rows, int64_t inputs, Storage storage,
                           QuantiseWeights quantise, unsigned char* panels);

// Codes [32 inputs][16 outputs] of one group, one byte each, to the group's lines.
void put_codes(Storage storage, const unsigned char* codes, unsigned char* lines);

}  // namespace expert::kernels
