// Causal attention over KV blocks with a streamed softmax: scores of a tile of kAttentionTile positions, then one
// update of each (row, head) state. Tiles and splits stand at absolute positions and are merged in ascending order, so
// that a row's result does not depend on how the prompt was cut (Milakov and Gimelshein 2018, "Online normalizer
// calculation for softmax"; the tiling is that of FlashAttention).
#pragma once

#include "kernels/cpu/isa.h"
#include "kernels/cpu/tile.h"
#include "kernels/kv_format.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

const unsigned char* block_of(const AttendArgs& args, int64_t position) {
  return args.kv + args.block_table[position / kKvBlock] * args.block_stride;
}

// The block to read ahead for `position`, which may lie behind the last: then one of what comes next.
const unsigned char* block_ahead(const AttendArgs& args, int64_t position) {
  const int64_t last = args.first_position + args.rows - 1;
  if (position <= last) return block_of(args, position);
  const unsigned char* next = args.next_blocks[position % kAttentionTile / kKvBlock];
  return next != nullptr ? next : block_of(args, last);
}

// The keys of P blocks side by side; while they are read, the same blocks' values are asked for.
template <int P>
struct KeyPanels {
  const unsigned char* line[P];
  NextPanels<P> next;
  __attribute__((always_inline)) KeyPanels(const AttendArgs& args, int64_t position) {
    for (int p = 0; p < P; ++p) {
      const unsigned char* block = block_of(args, position + p * kKvBlock);
      line[p] = block + kv_scale_bytes(args.format);
      next.line[p] = block + kv_k_bytes(args.format, args.head_dim);
    }
  }
};

// P panels of the values of one block of the tile; meanwhile the keys of a block of the next tile are asked for.
template <int P>
struct ValuePanels {
  const unsigned char* line[P];
  NextPanels<P> next;
  __attribute__((always_inline)) ValuePanels(const AttendArgs& args, int64_t position, int64_t panel) {
    const int64_t size = kv_panel_bytes(args.format, kKvBlock);
    const int64_t offset = kv_k_bytes(args.format, args.head_dim) + kv_scale_bytes(args.format);
    const unsigned char* values = block_of(args, position) + offset;
    const unsigned char* keys_ahead = block_ahead(args, position + kAttentionTile);
    for (int p = 0; p < P; ++p) {
      line[p] = values + (panel + p) * size;
      next.line[p] = keys_ahead + (panel + p) * size;
    }
    // Keys in INT8 are a line longer than the values without their scales.
    if (panel == 0 && args.format == KvFormat::int8) __builtin_prefetch(keys_ahead + panel_count(args.head_dim) * size);
  }
};

// Views into AttendArgs::scratch and state, one entry per (row, head), row-major. The two kinds of products, `Work`
// below, add:
//   run_scores<R, P>(first, position, scores)      scores[r, 0..16 P) = q[first + r] . K of P blocks
//   weigh(first, last, tile_position, valid)       makes the probabilities of a tile ready for its values
//   run_values<R, P>(first, tile_position, valid, panel)
//       accumulator[first + r] = accumulator * factor + sum over tokens of p[r, t] V[t], for the 16 P dimensions from
//       `panel` on, with the factor that soften() left
struct States {
  const AttendArgs& args;
  int64_t count;
  float* scores;  // [count, kAttentionTile]
  float* state;   // of the split at hand, [count, state_stride]

  float* state_of(int64_t s) const { return state + s * state_stride(args.head_dim); }
};

template <class Work>
struct Scores {
  const Work& work;
  int64_t tile_position;
  int64_t tokens;

  template <int R>
  __attribute__((always_inline)) void run(int64_t first) const {
    constexpr int P = Work::template kPanels<R>;
    float* scores = work.scores + first * kAttentionTile;
    int64_t t = 0;
    for (; t + (P - 1) * kKvBlock < tokens; t += P * kKvBlock) {
      work.template run_scores<R, P>(first, tile_position + t, scores + t);
    }
    for (; t < tokens; t += kKvBlock) work.template run_scores<R, 1>(first, tile_position + t, scores + t);
  }
};

template <class Work>
struct Values {
  const Work& work;
  int64_t tile_position;
  int64_t valid;

  template <int R>
  __attribute__((always_inline)) void run(int64_t first) const {
    constexpr int P = Work::template kPanels<R>;
    constexpr int kAll = Work::template kAllPanels<R>;
    const int64_t panels = panel_count(work.args.head_dim);
    int64_t panel = 0;
    if constexpr (kAll > P) {
      for (; panel + kAll <= panels; panel += kAll) {
        work.template run_values<R, kAll>(first, tile_position, valid, panel);
      }
    }
    for (; panel + P <= panels; panel += P) work.template run_values<R, P>(first, tile_position, valid, panel);
    for (; panel < panels; ++panel) work.template run_values<R, 1>(first, tile_position, valid, panel);
  }
};

// Turns one row's scores into exp(score - max), updates its max and sum, and leaves the factor for what it had in [2].
void soften(float* scores, int64_t valid, float* state) {
  for (int64_t t = valid; t < kAttentionTile; ++t) scores[t] = -__builtin_inff();
  Floats most = load(scores);
  for (int64_t t = kLanes; t < kAttentionTile; t += kLanes) most = max(most, load(scores + t));
  const float tile_max = max_lanes(most);
  const float new_max = tile_max > state[0] ? tile_max : state[0];
  Floats sum = {};
  for (int64_t t = 0; t < kAttentionTile; t += kLanes) {
    const Floats p = exp(load(scores + t) - splat(new_max));
    store(scores + t, p);
    sum += p;
  }
  float factor[kLanes];
  store(factor, exp(splat(state[0] - new_max)));
  state[1] = state[1] * factor[0] + sum_lanes(sum);
  state[2] = factor[0];
  state[0] = new_max;
}

// States [first, last) against the values of the tile at tile_position, all seeing `valid` of its tokens.
template <class Work>
void values_of_tile(const Work& work, int64_t tile_position, int64_t valid, int64_t first, int64_t last) {
  work.weigh(first, last, tile_position, valid);
  over_tiles<Work::kTileRows>(first, last, Values<Work>{work, tile_position, valid});
}

template <class Work>
void attend_tile(const Work& work, int64_t tile_position) {
  const AttendArgs& args = work.args;
  const int64_t last_position = args.first_position + args.rows - 1;
  const int64_t before = tile_position - args.first_position;  // rows in front of the tile see none of it
  const int64_t first_row = before > 0 ? before : 0;
  const int64_t tokens = smaller(kAttentionTile, last_position + 1 - tile_position);
  over_tiles<Work::kTileRows>(first_row * args.group, work.count, Scores<Work>{work, tile_position, tokens});
  int64_t row = first_row;
  for (; row < args.rows; ++row) {  // rows whose own position lies in the tile see a part of it
    const int64_t valid = args.first_position + row + 1 - tile_position;
    if (valid >= kAttentionTile) break;
    for (int64_t s = row * args.group; s < (row + 1) * args.group; ++s) {
      soften(work.scores + s * kAttentionTile, valid, work.state_of(s));
    }
    values_of_tile(work, tile_position, valid, row * args.group, (row + 1) * args.group);
  }
  if (row == args.rows) return;
  for (int64_t s = row * args.group; s < work.count; ++s) {
    soften(work.scores + s * kAttentionTile, kAttentionTile, work.state_of(s));
  }
  values_of_tile(work, tile_position, kAttentionTile, row * args.group, work.count);
}

void reset(float* state, int64_t states, int64_t head_dim) {
  const int64_t stride = state_stride(head_dim);
  for (int64_t i = 0; i < states * stride; ++i) state[i] = 0;
  for (int64_t s = 0; s < states; ++s) state[s * stride] = -__builtin_inff();
}

template <class Work>
void attend_split(const Work& work, int64_t split) {
  const int64_t end = smaller((split + 1) * kAttentionSplit, work.args.first_position + work.args.rows);
  reset(work.state, work.count, work.args.head_dim);
  for (int64_t t = split * kAttentionSplit; t < end; t += kAttentionTile) attend_tile(work, t);
}

template <class Work>
void attend_of(const AttendArgs& args) {
  const Work work(args);
  reset(args.state, work.count, args.head_dim);
  for (int64_t split = args.split_begin; split < args.split_end; ++split) {
    attend_split(work, split);
    EXPERT_ISA_FLOATS::merge(args.state, work.state, work.count, args.head_dim);
  }
}

}  // namespace

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
