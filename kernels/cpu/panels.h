// Repacking of row-major weights into panels (kernels/formats.h). Plain code, run once per matrix.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <vector>

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

// The groups of a panel, and the words of its outputs with which the scales take a byte each.
struct QuantisedPanel {
  std::vector<uint16_t> scales;       // [groups][16], INT4's with the zero point
  std::vector<unsigned char> codes;   // [groups][32 inputs][16]
  uint32_t heads[kPanelRows];
};
// Each group as `quantise` has it where its output's scales lie within two octaves. Where they lie further apart, the shift, of
// 0 to 2, with which the nearest scales that it allows cost the least. `read` writes the weights [32][16] of a group.
QuantisedPanel quantise_panel(Storage storage, int64_t inputs, QuantiseWeights quantise,
                              const std::function<void(int64_t group, float* w)>& read);

// Codes [32 inputs][16 outputs] of one group, one byte each, to the group's lines.
void put_codes(Storage storage, const unsigned char* codes, unsigned char* lines);

}  // namespace expert::kernels
