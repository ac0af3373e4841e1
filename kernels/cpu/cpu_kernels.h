// The table of functions one instruction set provides. kernels/cpu/*.cpp except dispatch.cpp, factors.cpp and panels.cpp
// are compiled once per instruction set, each into its own namespace; dispatch.cpp picks a table at run time.
//
// All strides are in elements. Nothing here allocates, throws or keeps state, so any number of threads may call at once
// on disjoint outputs. What a row gets never depends on the other rows of the call.
#pragma once

#include <stdint.h>

#include "kernels/cpu/factors.h"
#include "kernels/factors.h"
#include "kernels/formats.h"
#include "kernels/kv_format.h"

namespace expert::kernels {

// y[r, n] = scale * sum_k x[r, k] W[n, k]   (accumulate: y += ...) for the outputs n of panels [panel_begin,
// panel_end).
struct GemmArgs {
  const void* panels;  // all panels of W
  int64_t outputs;
  int64_t inputs;
  int64_t panel_begin;
  int64_t panel_end;
  const float* x;
  int64_t x_stride;
  const unsigned char* prepared;  // rows of prepare_row(), prepared_row_bytes() apart; F32 weights read x instead
  int64_t rows;
  float* y;
  int64_t y_stride;
  float scale;
  bool accumulate;
  float* scratch;  // kGemmScratch floats, 64-byte aligned, for many rows; null is slower
};

// Bytes of one row of activations in the form a quantised product reads: codes of each group, in an order of the
// instruction set's own, then per group a float for the scale and a word for the sum of its codes.
constexpr int64_t kGroupCodeBytes = 2 * kGroup;
constexpr int64_t quantised_row_bytes(int64_t inputs) {
  return (group_count(inputs) * (kGroupCodeBytes + 8) + 63) / 64 * 64;
}

constexpr int64_t kGemmRows = 96;  // rows whose input block is kept in the second-level cache
constexpr int64_t kGemmScratch = (kGemmRows + 2 * kPanelRows) * kInputBlock;

struct FineRow;  // kernels/cpu/screen.h

// t[r, j] = weights[j] * sum_k x[r, k] factors[j][k] for the factor rows j of [begin, end): rows of any number of A
// (kernels/factors.h) over the same inputs, whichever expert or projection they belong to.
struct ShrinkArgs {
  const unsigned char* const* factors;
  const float* weights;
  int64_t count;  // of all factor rows; those of this call are [begin, end)
  int64_t begin;
  int64_t end;
  const float* x;
  int64_t x_stride;
  int64_t rows;
  int64_t inputs;
  float* t;
  int64_t t_stride;
};

// One B (kernels/factors.h) and its columns of t.
struct ExpandTerm {
  Storage storage;
  const unsigned char* panels;
  int64_t rank;
  const float* t;  // of row 0; the next row is t_stride further
  int64_t t_stride;
};

// y = result_scale * (base_scale * y + sum over terms of B t + base_bias + bias) for the outputs of panels
// [panel_begin, panel_end), in this order; vectors are indexed by output, null ones are left out.
struct ExpandArgs {
  const ExpandTerm* terms;
  int64_t count;
  int64_t outputs;
  int64_t panel_begin;
  int64_t panel_end;
  int64_t rows;
  float* y;
  int64_t y_stride;
  const float* base_scale;
  const float* base_bias;
  const float* bias;
  const float* result_scale;
};

// RMSNorm over each of `heads` vectors of head_dim values (weight may be null: none), then half-split rotation of the
// first 2 * half values: (a, b) -> (a cos - b sin, b cos + a sin) with a = x[i], b = x[half + i].
struct NormRopeArgs {
  float* x;
  int64_t heads;
  int64_t head_dim;
  const float* norm;
  float eps;
  const float* cos;  // [half]
  const float* sin;
  int64_t half;
};

// Causal attention of `rows` consecutive positions of one request for the q heads of one kv head, over the position
// splits [split_begin, split_end) of kAttentionSplit tokens. The state of a (row, head) is max, sum and an accumulator:
//   state[(r * group + g) * state_stride(head_dim)]: [0] max, [1] sum, [16...] accumulator of head_dim values
// attend() leaves the merged state of its splits; merge() folds a later state into an earlier one.
struct AttendArgs {
  KvFormat format;
  const float* q;  // normed and rotated, [rows, q_stride], the group's heads adjacent
  int64_t q_stride;
  int64_t rows;
  int64_t group;
  int64_t head_dim;
  int64_t first_position;
  float scale;
  const unsigned char* kv;  // base of (layer, kv head); block b at kv + b * block_stride bytes
  int64_t block_stride;
  const int32_t* block_table;
  int64_t split_begin;
  int64_t split_end;
  // Blocks of the first positions of what the same thread attends to next, to be asked for meanwhile; or null.
  const unsigned char* next_blocks[kAttentionTile / kKvBlock];
  float* state;
  float* scratch;  // attend_scratch(rows * group, head_dim) floats
};

// static: a definition shared between instruction sets would be the linker's choice of one of them.
static constexpr int64_t state_stride(int64_t head_dim) { return 16 + panel_count(head_dim) * kPanelRows; }
constexpr int64_t attend_scratch(int64_t states, int64_t head_dim) {
  const int64_t scores_and_codes = kAttentionTile + kAttentionTile / 2 + 4;
  return states * (state_stride(head_dim) + panel_count(head_dim) * kPanelRows + scores_and_codes);
}

struct CpuKernels {
  const char* isa;
  bool narrow;  // whether it has products with narrow BF16 weights; all read their rows back
  void (*gemm)(Storage storage, const GemmArgs& args);
  // The same with the panels of a screen (kernels/cpu/screen.h) and rows of prepare_screened_row(), screened_row_bytes() apart.
  void (*screen)(const GemmArgs& args);
  // A product of one of those rows with a row of the screen by all of its bits. `estimate`: what screen() gave for it.
  float (*refine)(const FineRow& row, const unsigned char* fine, int64_t inputs, const unsigned char* x, float estimate);
  // Activations as a product with W stored so reads them: bytes of a row, 0 where it reads x itself (F32); and of one row x
  // [inputs] the inputs of `part`, made of nothing but these.
  // BF16: rounded to it, half to even, infinite above its largest number. Quantised formats: per group,
  // scale = max |x| / 127 and codes round(x / scale) of -127 to 127, half to even. A group with a value that is not finite gets
  // a NaN scale; one below 2^-100 everywhere counts as zero.
  int64_t (*prepared_row_bytes)(Storage storage, int64_t inputs);
  void (*prepare_row)(Storage storage, const float* x, int64_t inputs, InputRange part, unsigned char* out);
  // Weights of one group of one panel, [32 inputs][16 outputs]: scales (INT4's with the zero point), and codes in the same order,
  // that make the squared error least among the candidates. The same on every instruction set.
  void (*quantise_weights)(Storage storage, const float* w, uint16_t* scales, unsigned char* codes);
  // out[k] = W[row, k], k < inputs.
  void (*unpack_row)(Storage storage, const void* panels, int64_t inputs, int64_t row, float* out);
  // out = x / sqrt(mean(x^2) + eps) * weight for each row; rows are contiguous; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t rows, int64_t cols, float* out);
  // out = gate / (1 + exp(-gate)) * up; out may be gate.
  void (*swiglu)(const float* gate, const float* up, int64_t count, float* out);
  // out = x + y and out = x * y; out may be x.
  void (*add)(const float* x, const float* y, int64_t count, float* out);
  void (*multiply)(const float* x, const float* y, int64_t count, float* out);
  void (*norm_rope)(const NormRopeArgs& args);
  // Writes one token's K and V of one kv head into slot `token` of a KV block.
  void (*kv_write)(KvFormat format, const float* k, const float* v, int64_t head_dim, int64_t token,
                   unsigned char* block);
  void (*attend)(const AttendArgs& args);
  void (*merge)(float* state, const float* later, int64_t states, int64_t head_dim);
  // out = accumulator / sum for `group` adjacent heads of each row.
  void (*finish)(const float* state, int64_t rows, int64_t group, int64_t head_dim, float* out, int64_t out_stride);
  // out = exp(x), for tests of its accuracy.
  void (*exp)(const float* x, int64_t count, float* out);
  // What experts add.
  void (*shrink)(Storage storage, const ShrinkArgs& args);
  void (*expand)(const ExpandArgs& args);
  // Packs `rows` rows of `source` [rows, inputs] as consecutive rows of A. `source` needs no alignment.
  void (*pack_factor_rows)(Source type, const void* source, int64_t rows, int64_t inputs, FactorScale scale,
                           Storage storage, unsigned char* to);
  // Packs `rows` rows of `source` [rows, rank] as consecutive whole panels of B; rows missing in the last one become
  // zeros.
  void (*pack_factor_panels)(Source type, const void* source, int64_t rows, int64_t rank, FactorScale scale,
                             Storage storage, unsigned char* to);
  // `count` BF16 lines, a multiple of four, of a row of A or a panel of B as narrow ones behind a head of `head` bytes; false
  // where more values are too small than it has room for, and `to` is of no use then. Null where a set cannot.
  bool (*narrow_lines)(const unsigned char* lines, int64_t count, bool is_row, int64_t head, unsigned char* to);
};

// "baseline", "avx2", "avxvnni", "avx512", "avx512bf16", "amx", "neon", "neondot" or "neoni8mm"; null if this build or this
// machine does not have it.
const CpuKernels* find_kernels(const char* isa);
// The best this machine has; never null.
const CpuKernels* best_kernels();
// All that this machine can run, best first, terminated by null. The first call asks the system for the tile unit, which
// concerns the whole process: larger signal stacks.
const CpuKernels* const* available_kernels();

}  // namespace expert::kernels
