// y = c * (e * (W (d*x)) + D (d*x) + B (A (d*x)) + b + db) in three steps: shrink (t = w A (d*x)), the product with W,
// and finish, which adds up the parts of that product and everything else of an output once.
#pragma once

#include "kernels/cuda/panels.cuh"

namespace expert::kernels::cuda {

// d * x of one input; zero beyond the end.
__device__ inline float scaled_input(const ProductArgs& args, int64_t entry, int64_t input) {
  if (entry >= args.row_count || input >= args.inputs) return 0.0F;
  const int64_t row = args.rows != nullptr ? args.rows[entry] : entry;
  const float value = args.x[row * args.inputs + input];
  const float* scale = args.input_scales != nullptr ? args.input_scales[entry] : nullptr;
  return scale != nullptr ? value * scale[input] : value;
}

template <Storage S, int R>
__device__ inline void load_floats(const ProductArgs& args, int64_t first_entry, int64_t first_input,
                                   const InputTile<S>& tile) {
  for (int i = static_cast<int>(threadIdx.x); i < R * kSumInputs; i += kProductWarps * kWarpLanes) {
    const float value = scaled_input(args, first_entry + i / kSumInputs, first_input + i % kSumInputs);
    tile.floats(0)[i] = S == Storage::bf16 ? float_of(static_cast<uint32_t>(bf16_bits(value)) << 16) : value;
  }
}

// A warp turns a group into whole numbers at once: one lane, one input.
template <Storage S, int R>
__device__ inline void load_codes(const ProductArgs& args, int64_t first_entry, int64_t first_input,
                                  const InputTile<S>& tile) {
  constexpr int kGroups = InputTile<S>::kGroups;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int i = static_cast<int>(threadIdx.x) / kWarpLanes; i < R * kGroups; i += kProductWarps) {
    const int row = i / kGroups;
    const int group = i % kGroups;
    const float value = scaled_input(args, first_entry + row, first_input + group * kGroup + lane);
    const float most = warp_max(fabsf(value));
    const float poison = warp_sum(value - value);  // NaN where a value is not finite
    const bool finite = poison == 0.0F;
    const bool counts = finite && most > kLeastQuantised;
    const float inverse = counts ? 127.0F / most : 0.0F;
    tile.codes(row)[group * kGroup + lane] = static_cast<signed char>(counts ? rintf(value * inverse) : 0.0F);
    if (lane == 0) tile.scales(row)[group] = finite ? most / 127.0F : poison;
  }
}

__device__ inline const ProductOutput& output_of(const ProductArgs& args, int64_t panel) {
  int which = 0;
  while (which + 1 < args.output_count && panel >= args.output[which + 1].first_panel) ++which;
  return args.output[which];
}

// Each lane has four outputs of one row, kept_row<R>().
template <int R>
__device__ inline void write_products(const ProductArgs& args, const ProductOutput& output, int64_t panel,
                                      int64_t first_entry, const float (&totals)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t entry = first_entry + kept_row<R>();
  if (!writes_row<R>() || entry >= args.row_count) return;
  const int64_t row = args.rows != nullptr ? args.rows[entry] : entry;
  EXPERT_UNROLL
  for (int o = 0; o < 4; ++o) {
    const int64_t n = panel * kPanelRows + lane % 4 * 4 + o;
    if (n >= output.outputs) continue;
    if (args.parts != nullptr) {
      const int64_t part = static_cast<int64_t>(blockIdx.z) * args.part_rows + row;
      args.parts[part * args.part_stride + output.offset + n] = totals[o];
    } else {
      float* y = output.y + row * output.outputs + n;
      *y = args.accumulate != 0 ? fmaf(args.weight, totals[o], *y) : totals[o];
    }
  }
}

// Blocks of threads: (panels, tiles of R rows, parts of the inputs; one where all parts are summed here). The sum over
// a part starts at zero and is added to the total, here or in finish: the bits are the same.
template <Storage S, int R>
__global__ void __launch_bounds__(kProductWarps* kWarpLanes) product(const ProductArgs args) {
  const InputTile<S> tile{block_memory(), R};
  const int64_t warp_panel = static_cast<int64_t>(blockIdx.x) * kProductWarps + threadIdx.x / kWarpLanes;
  const bool works = warp_panel < args.panel_count;
  const ProductOutput& output = output_of(args, works ? warp_panel : 0);
  const int64_t panel = warp_panel - output.first_panel;
  const unsigned char* panel_at = output.panels + (works ? panel : 0) * panel_bytes(S, args.inputs);
  const int64_t first_entry = static_cast<int64_t>(blockIdx.y) * R;
  const bool all = args.parts == nullptr;
  const int64_t begin = all ? 0 : static_cast<int64_t>(blockIdx.z) * kSumInputs;
  const int64_t end = all ? args.inputs : begin + kSumInputs < args.inputs ? begin + kSumInputs : args.inputs;
  float totals[4] = {};
  for (int64_t first = begin; first < end; first += kSumInputs) {
    __syncthreads();
    if (is_quantised(S)) {
      load_codes<S, R>(args, first_entry, first, tile);
    } else {
      load_floats<S, R>(args, first_entry, first, tile);
    }
    __syncthreads();
    if (!works) continue;
    float sums[R][4] = {};
    add_products(panel_at, first, end - first < kSumInputs ? end - first : kSumInputs, tile, sums);
    sum_lines<R>(sums);
    EXPERT_UNROLL
    for (int o = 0; o < 4; ++o) totals[o] += sums[0][o];
  }
  if (works) write_products<R>(args, output, panel, first_entry, totals);
}

// --- shrink ----------------------------------------------------------------------------------------------------------

__device__ inline float bent_input(const ShrinkArgs& args, const ShrinkTask& task, int64_t row, int64_t input) {
  if (input >= args.inputs) return 0.0F;
  const float value = args.x[row * args.inputs + input];
  return task.input_scale != nullptr ? value * task.input_scale[input] : value;
}

// This lane's part of one row of A times up to kMostRows rows of x.
__device__ inline void add_factor_row(const ShrinkArgs& args, const ShrinkTask& task, const unsigned char* from,
                                      int64_t first_row, int rows, float (&sums)[kMostRows]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t line_inputs = task.bf16 != 0 ? 32 : 16;
  const int64_t lines = (args.inputs + line_inputs - 1) / line_inputs;
  for (int64_t line = lane / 4; line < lines; line += 8) {
    const uint4 piece = load_piece(from + line * 64 + lane % 4 * 16);
    const int64_t input = line * line_inputs + lane % 4 * 4;
    for (int r = 0; r < rows; ++r) {
      EXPERT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const uint32_t word = word_of(piece, i);
        if (task.bf16 != 0) {
          sums[r] = fmaf(bent_input(args, task, first_row + r, input + i), low_half(word), sums[r]);
          sums[r] = fmaf(bent_input(args, task, first_row + r, input + 16 + i), high_half(word), sums[r]);
        } else {
          sums[r] = fmaf(bent_input(args, task, first_row + r, input + i), float_of(word), sums[r]);
        }
      }
    }
  }
}

// One warp per unit. Tasks are those of all experts, ranks and segments of the batch; none is padded.
__global__ void __launch_bounds__(kPlainThreads) shrink(const ShrinkArgs args) {
  const int unit = static_cast<int>((blockIdx.x * kPlainThreads + threadIdx.x) / kWarpLanes);
  if (unit >= args.unit_count) return;
  int low = 0;
  int high = args.task_count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (args.tasks[middle].first_unit <= unit) low = middle; else high = middle;
  }
  const ShrinkTask& task = args.tasks[low];
  const int factor = (unit - task.first_unit) % task.rank;
  const int first = (unit - task.first_unit) / task.rank * kMostRows;
  const int left = task.row_count - first;
  const int rows = left < kMostRows ? left : kMostRows;
  const int64_t line_inputs = task.bf16 != 0 ? 32 : 16;
  const int64_t row_bytes = (args.inputs + line_inputs - 1) / line_inputs * 64;
  float sums[kMostRows] = {};
  add_factor_row(args, task, task.a + factor * row_bytes, task.first_row + first, rows, sums);
  EXPERT_UNROLL
  for (int r = 0; r < kMostRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (r < rows && threadIdx.x % kWarpLanes == 0) {
      task.t[static_cast<int64_t>(first + r) * task.rank + factor] = task.weight * sum;
    }
  }
}

// --- finish ----------------------------------------------------------------------------------------------------------

// One value of B [outputs, rank] (kernels/factors.h); an odd last rank of BF16 takes half a line.
__device__ inline float factor_value(const ExpandTerm& term, int64_t output, int rank) {
  const int64_t lane = output % kPanelRows;
  const unsigned char* panel = term.b + output / kPanelRows * kPanelRows * term.rank * (term.bf16 != 0 ? 2 : 4);
  if (term.bf16 == 0) return *reinterpret_cast<const float*>(panel + static_cast<int64_t>(rank) * 64 + lane * 4);
  const unsigned char* line = panel + static_cast<int64_t>(rank / 2) * 64;
  const bool alone = rank % 2 == 0 && rank + 1 == term.rank;
  return float_of(half_word(line + (alone ? lane * 2 : lane * 4 + rank % 2 * 2)) << 16);
}

__device__ inline float base_of(const FinishArgs& args, const FinishOutput& output, const DeltaVectors* delta,
                                int64_t row, int64_t n) {
  if (output.stage == FinishStage::closing) return output.y[row * output.outputs + n];
  float total = 0.0F;
  if (delta == nullptr || delta->skip_base == 0) {
    if (args.parts == nullptr) {
      total = output.y[row * output.outputs + n];
    } else {
      for (int64_t part = 0; part < args.part_count; ++part) {
        total += args.parts[(part * args.part_rows + row) * args.part_stride + output.offset + n];
      }
    }
  }
  return delta != nullptr && delta->output_scale != nullptr ? total * delta->output_scale[n] : total;
}

// All terms of one output are one chain, read once for the rows of the tile.
__device__ inline void expand(const FinishOutput& output, const DeltaVectors& delta, const RowTile& tile, int64_t n,
                              float (&sums)[kMostRows]) {
  for (int i = delta.first_term; i < delta.last_term; ++i) {
    const ExpandTerm& term = output.terms[i];
    const float* t = term.t + static_cast<int64_t>(tile.first_row - term.first_row) * term.rank;
    EXPERT_UNROLL_FOUR
    for (int k = 0; k < term.rank; ++k) {
      const float b = factor_value(term, n, k);
      EXPERT_UNROLL
      for (int r = 0; r < kMostRows; ++r) {
        if (r < tile.count) sums[r] = fmaf(t[static_cast<int64_t>(r) * term.rank + k], b, sums[r]);
      }
    }
  }
}

// Blocks of threads: (outputs, tiles of rows, projections).
__global__ void __launch_bounds__(kPlainThreads) finish(const FinishArgs args) {
  const FinishOutput& output = args.output[blockIdx.z];
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (n >= output.outputs || static_cast<int>(blockIdx.y) >= output.tile_count) return;
  RowTile tile;
  if (output.tiles != nullptr) {
    tile = output.tiles[blockIdx.y];
  } else {
    tile.first_row = static_cast<int32_t>(blockIdx.y) * kMostRows;
    tile.count = args.row_count - tile.first_row < kMostRows ? args.row_count - tile.first_row : kMostRows;
    tile.delta = -1;
  }
  const DeltaVectors* delta = tile.delta >= 0 ? output.deltas + tile.delta : nullptr;
  const bool closes = output.stage != FinishStage::opening;
  float sums[kMostRows] = {};
  if (closes && delta != nullptr) expand(output, *delta, tile, n, sums);
  EXPERT_UNROLL
  for (int r = 0; r < kMostRows; ++r) {
    if (r >= tile.count) continue;
    const int64_t row = tile.first_row + r;
    float y = base_of(args, output, delta, row, n);
    if (closes) {
      if (delta != nullptr) y += sums[r];
      if (output.bias != nullptr) y += output.bias[n];
      if (delta != nullptr && delta->bias != nullptr) y += delta->bias[n];
      if (delta != nullptr && delta->result_scale != nullptr) y *= delta->result_scale[n];
    }
    output.y[row * output.outputs + n] = y;
  }
}

}  // namespace expert::kernels::cuda
