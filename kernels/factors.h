// The packed layout of an expert's two factors in B (A x), F32 or BF16, in which no rank is padded.
//
// A [rank, inputs]: its rows one after the other, so that the rows of many experts are one list. A row is a sequence of
// 64-byte lines, zero-padded to whole lines:
//   F32   one line = 16 inputs
//   BF16  one line = 32 inputs: 32-bit lane i holds input i in its low half and input 16 + i in its high half
// B [outputs, rank]: panels of kPanelRows outputs, zero-padded in the last one, a sequence of lines along the rank:
//   F32   one line = 16 outputs x 1
//   BF16  one line = 16 outputs x 2, as in a panel of formats.h; an odd last rank takes half a line, 16 outputs x 1
// Everything here has internal linkage, as in formats.h.
#pragma once

#include "kernels/formats.h"

namespace expert::kernels {

// Inputs in one line of A.
constexpr int64_t factor_line_inputs(Storage storage) { return storage == Storage::f32 ? 16 : 32; }

// Bytes of one row of A.
constexpr int64_t factor_row_bytes(Storage storage, int64_t inputs) {
  const int64_t line = factor_line_inputs(storage);
  return (inputs + line - 1) / line * 64;
}

// Bytes of one panel of B.
constexpr int64_t factor_panel_bytes(Storage storage, int64_t rank) {
  return rank * kPanelRows * (storage == Storage::f32 ? 4 : 2);
}

}  // namespace expert::kernels
