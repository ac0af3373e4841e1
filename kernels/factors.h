// The packed layout of an expert's two factors in B (A x), F32 or BF16, in which no rank is padded.
//
// A [rank, inputs]: its rows one after the other, so that the rows of many experts are one list. A row is a sequence of
// 64-byte lines, zero-padded to whole lines:
//   F32   one line = 16 inputs
//   BF16  one line = 32 inputs: 32-bit lane i holds input i in its low half and input 16 + i in its high half
// B [outputs, rank]: panels of kPanelRows outputs, zero-padded in the last one, a sequence of lines along the rank:
//   F32   one line = 16 outputs x 1
//   BF16  one line = 16 outputs x 2, as in a panel of formats.h; an odd last rank takes half a line, 16 outputs x 1
// Narrow BF16 holds the same values in 12 bits each, in rows of A of whole units (128 inputs) and panels of B of whole units (8
// ranks): a head, then units as in formats.h, but with one base for all: codes 0 to 6 are the distance below it, 7 is zero.
// Head: the base, the number of values that are too small for it and have code 7, two bytes 0; then each of these: its index
// (an input; or rank * 16 + output), and its bits. Products add them after all others.
// Everything here has internal linkage, as in formats.h.
#pragma once

#include "kernels/formats.h"

namespace expert::kernels {

// Inputs in one line of A.
constexpr int64_t factor_line_inputs(Storage storage) { return storage == Storage::f32 ? 16 : 32; }

constexpr int64_t kNarrowRowInputs = 128;
constexpr int64_t kNarrowRowHead = 64;
constexpr int64_t narrow_panel_head(int64_t rank) { return (rank + 31) / 32 * 16; }
constexpr int64_t most_small(int64_t head_bytes) { return head_bytes / 4 - 1; }

// Bytes of one row of A.
constexpr int64_t factor_row_bytes(Storage storage, int64_t inputs) {
  if (storage == Storage::narrow_bf16) return kNarrowRowHead + inputs / kNarrowRowInputs * kNarrowUnitBytes;
  const int64_t line = factor_line_inputs(storage);
  return (inputs + line - 1) / line * 64;
}

// Bytes of one panel of B.
constexpr int64_t factor_panel_bytes(Storage storage, int64_t rank) {
  if (storage == Storage::narrow_bf16) return narrow_panel_head(rank) + rank / kNarrowInputs * kNarrowUnitBytes;
  return rank * kPanelRows * (storage == Storage::f32 ? 4 : 2);
}

}  // namespace expert::kernels
