// What the CUDA kernels are called with: one struct per kernel, read by the device, written by the host.
//
// Packed weights, factors and KV blocks are those of kernels/formats.h, factors.h and kv_format.h: a panel of 16
// outputs is a sequence of 64-byte lines, so a warp reads eight lines at a time, 16 bytes per lane, without a gap. Lane l holds
// piece l % 4 (four outputs) of line l / 4; eight lanes therefore sum one output, and their sums meet in a fixed tree.
// The order of every sum depends on positions in the matrix or in the context only, never on the number of rows.
#pragma once

#include <stdint.h>

#include "kernels/formats.h"
#include "kernels/kv_format.h"

namespace expert::kernels::cuda {

constexpr int kWarpLanes = 32;
constexpr int kMostRows = 8;         // rows that share one pass over a weight
constexpr int kProductWarps = 4;     // panels per block of threads
constexpr int kSumInputs = 256;      // a product sums the inputs in parts of this many, then the parts in order
constexpr int kMostOutputs = 4;      // projections in one launch
constexpr int kSplitPositions = 256; // attention looks at the past in parts of this many positions
constexpr int kSplitBlocks = kSplitPositions / static_cast<int>(kKvBlock);
constexpr int kAttendWarps = 8;
constexpr int kMostQueries = 8;      // queries that share one pass over keys and values
constexpr int kPrepareWarps = 4;
constexpr int kNormThreads = 256;
constexpr int kPlainThreads = 256;
constexpr int64_t kMostHeadDim = 1024;

// Rows [first_row, first_row + count), at most kMostRows, under one delta (an index) or none (-1).
struct RowTile {
  int32_t first_row;
  int32_t count;
  int32_t delta;
};

// --- products with packed weights -----------------------------------------------------------------------------------

struct ProductOutput {
  const unsigned char* panels;
  float* y;            // [rows, outputs]
  int64_t outputs;
  int64_t first_panel; // of this output among those of the launch
  int64_t offset;      // of its first output in a row of `parts`
};

struct ProductArgs {
  ProductOutput output[kMostOutputs];
  int32_t output_count;
  int32_t row_count;       // rows to compute
  int64_t inputs;
  int64_t panel_count;     // of all outputs
  const float* x;          // [.., inputs]
  const int32_t* rows;     // which ones; null: 0, 1, …
  const float* const* input_scales;  // per entry of `rows`, null entries: none; null: none at all
  float* parts;            // [input part][row][part_stride]; null: sum all parts and write y
  int64_t part_rows;
  int64_t part_stride;
  float weight;            // y += weight * product where `accumulate`
  int32_t accumulate;
};

// --- experts ---------------------------------------------------------------------------------------------------------

// t[r, j] = weight * sum_k d[k] x[first_row + r, k] A[j, k], t [row_count, rank].
struct ShrinkTask {
  const unsigned char* a;
  const float* input_scale;  // or null
  float* t;
  int32_t first_row;
  int32_t row_count;
  int32_t rank;
  int32_t bf16;  // else F32
  float weight;
  int32_t first_unit;  // a unit is one row of A and up to kMostRows rows of x
};

struct ShrinkArgs {
  const ShrinkTask* tasks;
  int32_t task_count;
  int32_t unit_count;
  const float* x;
  int64_t inputs;
};

struct ExpandTerm {
  const unsigned char* b;
  const float* t;  // [rows of the segment, rank]
  int32_t rank;
  int32_t bf16;
  int32_t first_row;  // of the segment
};

struct DeltaVectors {
  const float* output_scale;  // null: ones
  const float* bias;          // null: zeros
  const float* result_scale;
  int32_t first_term;
  int32_t last_term;
  int32_t skip_base;
};

// `opening`: y = e * base, before full matrices are added; `closing`: the rest; `whole`: both.
enum class FinishStage : int32_t { whole, opening, closing };

struct FinishOutput {
  float* y;
  const float* bias;      // or null
  const RowTile* tiles;   // null: no delta anywhere, tiles of kMostRows rows
  const DeltaVectors* deltas;
  const ExpandTerm* terms;
  int32_t tile_count;
  int64_t outputs;
  int64_t offset;         // in a row of `parts`
  FinishStage stage;
};

struct FinishArgs {
  FinishOutput output[kMostOutputs];
  int32_t row_count;
  const float* parts;  // null: the base product stands in y
  int32_t part_count;
  int64_t part_rows;
  int64_t part_stride;
};

// --- embedding -------------------------------------------------------------------------------------------------------

struct EmbedArgs {
  const unsigned char* panels;
  Storage storage;
  int64_t cols;
  const int32_t* tokens;
  float* out;
};

struct EmbedTerm {
  const unsigned char* table;  // D [vocab, cols] or A [vocab, rank]
  const unsigned char* b;      // null: `table` is a D
  Storage table_storage;
  Storage b_storage;
  int64_t rank;
  float weight;
};

struct EmbedDeltaArgs {
  const RowTile* tiles;
  const DeltaVectors* deltas;
  const EmbedTerm* terms;
  const int32_t* tokens;
  int64_t cols;
  float* out;
};

// --- attention -------------------------------------------------------------------------------------------------------

struct RowPlace {
  int32_t position;
  int32_t table;  // index of its request's first KV block in `blocks`
};

// Queries are (row, head of the group), counted from `first_row` on: `count` of them from `first_query`.
struct QueryTile {
  int32_t first_row;
  int32_t first_query;
  int32_t count;
};

struct KvPlace {
  unsigned char* layer;  // blocks of one layer
  int64_t block_bytes;   // all kv heads
  int64_t head_bytes;
  int64_t value_offset;  // of the values behind a head's keys
};

struct PrepareArgs {
  float* q;
  float* k;
  const float* v;
  const float* q_norm;
  const float* k_norm;
  const float* cos;
  const float* sin;
  const RowPlace* places;
  const int32_t* blocks;
  KvPlace kv;
  KvFormat format;
  int32_t row_count;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t half;
  float eps;
};

struct AttendArgs {
  const float* q;
  const RowPlace* places;
  const int32_t* blocks;
  const QueryTile* tiles;
  KvPlace kv;
  // [row - first_row][head][split_stride][head_dim + 2]: sums of values, then maximum and sum of weights
  float* states;
  int32_t first_row;
  int32_t split_stride;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  float scale;
};

struct MergeArgs {
  const float* states;
  const RowPlace* places;
  float* out;
  int32_t first_row;
  int32_t split_stride;
  int32_t heads;
  int32_t head_dim;
};

// --- the rest --------------------------------------------------------------------------------------------------------

struct NormArgs {
  const float* x;
  const float* weight;
  float* out;
  int64_t cols;
  float eps;
};

struct PairArgs {
  const float* a;
  const float* b;
  float* out;
  int64_t count;
};

struct GatherArgs {
  const float* x;
  const int32_t* rows;
  float* out;
  int64_t cols;
};

}  // namespace expert::kernels::cuda
