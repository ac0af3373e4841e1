// Causal attention over KV blocks with a streamed softmax: scores of a tile of kAttentionTile positions, then one
// update of each (row, head) state. Tiles and splits stand at absolute positions and are merged in ascending order, so
// that a row's result does not depend on how the prompt was cut (Milakov and Gimelshein 2018, "Online normalizer
// calculation for softmax"; the tiling is that of FlashAttention).
#include "kernels/cpu/kv_panels.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Views into AttendArgs::scratch and state, one entry per (row, head), row-major.
struct Work {
  const AttendArgs& args;
  int64_t states;
  float* q;       // [states, head_dim], scaled
  float* scores;  // [states, kAttentionTile]
  float* state;   // of the split at hand, [states, state_stride]
};

const unsigned char* block_of(const AttendArgs& args, int64_t position) {
  return args.kv + args.block_table[position / kKvBlock] * args.block_stride;
}

// The block to read ahead for `position`, which may lie behind the last.
const unsigned char* block_ahead(const AttendArgs& args, int64_t position) {
  return block_of(args, smaller(position, args.first_position + args.rows - 1));
}

// scores[r, 0..16 P) = q[r] . K of P blocks, for R rows.
template <class Kv, int R, int P>
void score_blocks(const AttendArgs& args, int64_t position, const float* q, float* scores) {
  const unsigned char* block[P];
  const unsigned char* line[P];
  NextPanels<P> next;
  for (int p = 0; p < P; ++p) {
    block[p] = block_of(args, position + p * kKvBlock);
    line[p] = block[p] + kv_scale_bytes(Kv::kFormat);
    next.line[p] = block_ahead(args, position + (P + p) * kKvBlock) + kv_scale_bytes(Kv::kFormat);
  }
  Tile<R, P> tile;
  clear(tile);
  Kv::template multiply<R, P>(tile, line, q, args.head_dim, args.head_dim, next);
  for (int v = 0; v < P * kPanelVectors; ++v) {
    if constexpr (Kv::kFormat == KvFormat::int8) {
      const auto scale = reinterpret_cast<Floats>(line_words(block[v / kPanelVectors], v));
      for (int r = 0; r < R; ++r) tile.sum[r][v] *= scale;
    }
    for (int r = 0; r < R; ++r) store(scores + r * kAttentionTile + v * kLanes, tile.sum[r][v]);
  }
}

// accumulator[r] = accumulator[r] * scale[r] + sum over tokens of p[r, t] V[t], tokens < `tokens`, for the 16 P
// dimensions from `panel` on.
template <class Kv, int R, int P>
void value_rows(const AttendArgs& args, int64_t tile_position, int64_t tokens, int64_t panel, const float* p,
                float* state, const float* scale) {
  constexpr int64_t kPanel = kv_panel_bytes(Kv::kFormat, kKvBlock);
  const int64_t offset = kv_k_bytes(Kv::kFormat, args.head_dim) + kv_scale_bytes(Kv::kFormat) + panel * kPanel;
  Tile<R, P> tile;
  clear(tile);
  for (int64_t t = 0; t < tokens; t += kKvBlock) {
    const unsigned char* values = block_of(args, tile_position + t) + offset;
    const unsigned char* values_ahead = block_ahead(args, tile_position + t + kKvBlock) + offset;
    const unsigned char* line[P];
    NextPanels<P> next;
    for (int i = 0; i < P; ++i) {
      line[i] = values + i * kPanel;
      next.line[i] = values_ahead + i * kPanel;
    }
    Kv::template multiply<R, P>(tile, line, p + t, kAttentionTile, smaller(kKvBlock, tokens - t), next);
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kPanelVectors; ++v) {
      float* out = state + r * state_stride(args.head_dim) + 16 + panel * kPanelRows + v * kLanes;
      store(out, fma(load(out), splat(scale[r]), tile.sum[r][v]));
    }
  }
}

template <class Kv>
struct Scores {
  const Work& work;
  int64_t tile_position;
  int64_t tokens;

  template <int R>
  __attribute__((always_inline)) void run(int64_t first) const {
    constexpr int P = panels_at_once<R>();
    const float* q = work.q + first * work.args.head_dim;
    float* scores = work.scores + first * kAttentionTile;
    int64_t t = 0;
    for (; t + (P - 1) * kKvBlock < tokens; t += P * kKvBlock) {
      score_blocks<Kv, R, P>(work.args, tile_position + t, q, scores + t);
    }
    for (; t < tokens; t += kKvBlock) score_blocks<Kv, R, 1>(work.args, tile_position + t, q, scores + t);
  }
};

template <class Kv>
struct Values {
  const Work& work;
  int64_t tile_position;
  int64_t tokens;

  template <int R>
  __attribute__((always_inline)) void run(int64_t first) const {
    constexpr int P = panels_at_once<R>();
    const int64_t stride = state_stride(work.args.head_dim);
    const int64_t panels = panel_count(work.args.head_dim);
    const float* p = work.scores + first * kAttentionTile;
    float* state = work.state + first * stride;
    float scale[R];
    for (int r = 0; r < R; ++r) scale[r] = state[r * stride + 2];
    int64_t panel = 0;
    if constexpr (kAllPanels<Kv, R> > P) {  // one run through the values
      for (; panel + kAllPanels<Kv, R> <= panels; panel += kAllPanels<Kv, R>) {
        value_rows<Kv, R, kAllPanels<Kv, R>>(work.args, tile_position, tokens, panel, p, state, scale);
      }
    }
    for (; panel + P <= panels; panel += P) {
      value_rows<Kv, R, P>(work.args, tile_position, tokens, panel, p, state, scale);
    }
    for (; panel < panels; ++panel) value_rows<Kv, R, 1>(work.args, tile_position, tokens, panel, p, state, scale);
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

// Multiplies the probabilities of one row with the scales of the values they will meet.
void apply_value_scales(const AttendArgs& args, int64_t tile_position, int64_t tokens, float* p) {
  const int64_t offset = kv_k_bytes(KvFormat::int8, args.head_dim);
  for (int64_t t = 0; t < tokens; t += kKvBlock) {
    const unsigned char* scales = block_of(args, tile_position + t) + offset;
    for (int v = 0; v < kPanelVectors; ++v) {
      float* at = p + t + v * kLanes;
      store(at, load(at) * reinterpret_cast<Floats>(line_words(scales, v)));
    }
  }
}

// States [first, last) against the values of the tile at tile_position, all seeing `valid` of its tokens.
template <class Kv>
void values_of_tile(const Work& work, int64_t tile_position, int64_t valid, int64_t first, int64_t last) {
  if constexpr (Kv::kFormat == KvFormat::int8) {
    for (int64_t s = first; s < last; ++s) {
      apply_value_scales(work.args, tile_position, valid, work.scores + s * kAttentionTile);
    }
  }
  over_tiles<Kv::kTileRows>(first, last, Values<Kv>{work, tile_position, valid});
}

template <class Kv>
void attend_tile(const Work& work, int64_t tile_position) {
  const AttendArgs& args = work.args;
  const int64_t last_position = args.first_position + args.rows - 1;
  const int64_t before = tile_position - args.first_position;  // rows in front of the tile see none of it
  const int64_t first_row = before > 0 ? before : 0;
  const int64_t tokens = smaller(kAttentionTile, last_position + 1 - tile_position);
  over_tiles<Kv::kTileRows>(first_row * args.group, work.states, Scores<Kv>{work, tile_position, tokens});
  int64_t row = first_row;
  for (; row < args.rows; ++row) {  // rows whose own position lies in the tile see a part of it
    const int64_t valid = args.first_position + row + 1 - tile_position;
    if (valid >= kAttentionTile) break;
    for (int64_t s = row * args.group; s < (row + 1) * args.group; ++s) {
      soften(work.scores + s * kAttentionTile, valid, work.state + s * state_stride(args.head_dim));
    }
    values_of_tile<Kv>(work, tile_position, valid, row * args.group, (row + 1) * args.group);
  }
  if (row == args.rows) return;
  for (int64_t s = row * args.group; s < work.states; ++s) {
    soften(work.scores + s * kAttentionTile, kAttentionTile, work.state + s * state_stride(args.head_dim));
  }
  values_of_tile<Kv>(work, tile_position, kAttentionTile, row * args.group, work.states);
}

void reset(float* state, int64_t states, int64_t head_dim) {
  const int64_t stride = state_stride(head_dim);
  for (int64_t i = 0; i < states * stride; ++i) state[i] = 0;
  for (int64_t s = 0; s < states; ++s) state[s * stride] = -__builtin_inff();
}

template <class Kv>
void attend_split(const Work& work, int64_t split) {
  const int64_t end = smaller((split + 1) * kAttentionSplit, work.args.first_position + work.args.rows);
  reset(work.state, work.states, work.args.head_dim);
  for (int64_t t = split * kAttentionSplit; t < end; t += kAttentionTile) attend_tile<Kv>(work, t);
}

void scale_queries(const AttendArgs& args, float* q) {
  for (int64_t r = 0; r < args.rows; ++r) {
    for (int64_t i = 0; i < args.group * args.head_dim; ++i) *q++ = args.q[r * args.q_stride + i] * args.scale;
  }
}

template <class Kv>
void attend_of(const AttendArgs& args) {
  const int64_t states = args.rows * args.group;
  float* q = args.scratch;
  float* scores = q + states * args.head_dim;
  const Work work{args, states, q, scores, scores + states * kAttentionTile};
  scale_queries(args, q);
  reset(args.state, states, args.head_dim);
  for (int64_t split = args.split_begin; split < args.split_end; ++split) {
    attend_split<Kv>(work, split);
    merge(args.state, work.state, states, args.head_dim);
  }
}

}  // namespace

void attend(const AttendArgs& args) {
  switch (args.format) {
    case KvFormat::f32:
      return attend_of<F32Kv>(args);
    case KvFormat::bf16:
      return attend_of<Bf16Kv>(args);
    case KvFormat::int8:
      return attend_of<Int8Kv>(args);
  }
}

void merge(float* state, const float* later, int64_t states, int64_t head_dim) {
  const int64_t stride = state_stride(head_dim);
  for (int64_t s = 0; s < states; ++s, state += stride, later += stride) {
    if (later[1] == 0) continue;  // none of its tokens is in this row's past
    const float most = later[0] > state[0] ? later[0] : state[0];
    float factor[kLanes];
    store(factor, exp(splat(state[0] - most)));
    const float keep = factor[0];
    store(factor, exp(splat(later[0] - most)));
    state[0] = most;
    state[1] = state[1] * keep + later[1] * factor[0];
    for (int64_t i = 16; i < stride; i += kLanes) {
      store(state + i, fma(load(state + i), splat(keep), load(later + i) * splat(factor[0])));
    }
  }
}

void finish(const float* state, int64_t rows, int64_t group, int64_t head_dim, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < group; ++g, state += state_stride(head_dim)) {
      float* to = out + r * out_stride + g * head_dim;
      for (int64_t i = 0; i < head_dim; ++i) to[i] = state[16 + i] / state[1];
    }
  }
}

namespace {

void write_f32(const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* keys,
               unsigned char* values) {
  for (int64_t d = 0; d < head_dim; ++d) {
    unsigned char* panel = values + d / kPanelRows * kv_panel_bytes(KvFormat::f32, kKvBlock);
    __builtin_memcpy(keys + d * 64 + token * 4, k + d, sizeof(float));
    __builtin_memcpy(panel + token * 64 + d % kPanelRows * 4, v + d, sizeof(float));
  }
}

void write_bf16(const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* keys,
                unsigned char* values) {
  for (int64_t d = 0; d < head_dim; ++d) {
    unsigned char* panel = values + d / kPanelRows * kv_panel_bytes(KvFormat::bf16, kKvBlock);
    const uint16_t key = bf16_from_float(k[d]);
    const uint16_t value = bf16_from_float(v[d]);
    __builtin_memcpy(keys + d / 2 * 64 + token * 4 + d % 2 * 2, &key, sizeof key);
    __builtin_memcpy(panel + token / 2 * 64 + d % kPanelRows * 4 + token % 2 * 2, &value, sizeof value);
  }
}

void write_int8(const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* keys,
                unsigned char* values) {
  int8_t numbers[kMostInt8HeadDim];
  float scale = quantise_int8(k, head_dim, numbers);
  __builtin_memcpy(keys + token * 4, &scale, sizeof scale);
  keys += kv_scale_bytes(KvFormat::int8);
  for (int64_t d = 0; d < head_dim; ++d) keys[d * kPanelRows + token] = static_cast<unsigned char>(numbers[d]);
  scale = quantise_int8(v, head_dim, numbers);
  __builtin_memcpy(values + token * 4, &scale, sizeof scale);
  values += kv_scale_bytes(KvFormat::int8);
  for (int64_t d = 0; d < head_dim; d += kPanelRows) {
    unsigned char* line = values + d / kPanelRows * kv_panel_bytes(KvFormat::int8, kKvBlock) + token * kPanelRows;
    __builtin_memcpy(line, numbers + d, static_cast<size_t>(smaller(kPanelRows, head_dim - d)));
  }
}

}  // namespace

void kv_write(KvFormat format, const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* block) {
  unsigned char* values = block + kv_k_bytes(format, head_dim);
  switch (format) {
    case KvFormat::f32:
      return write_f32(k, v, head_dim, token, block, values);
    case KvFormat::bf16:
      return write_bf16(k, v, head_dim, token, block, values);
    case KvFormat::int8:
      return write_int8(k, v, head_dim, token, block, values);
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
