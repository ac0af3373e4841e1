// Attention over keys and values in F32 and BF16, and the writing of all formats.
#include "kernels/cpu/attention_flow.h"
#include "kernels/cpu/kv_panels.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

template <class Kv>
struct FloatWork : States {
  static constexpr int kTileRows = Kv::kTileRows;
  template <int R>
  static constexpr int kPanels = panels_at_once<R>();
  template <int R>
  static constexpr int kAllPanels = R * 8 * kPanelVectors <= kSumRegisters ? 8 : 0;  // a head of 128: one run through

  float* q;  // [count, head_dim], scaled

  explicit FloatWork(const AttendArgs& given) : States{given, given.rows * given.group, nullptr, nullptr} {
    q = args.scratch;
    scores = q + count * args.head_dim;
    state = scores + count * kAttentionTile;
    float* to = q;
    for (int64_t r = 0; r < args.rows; ++r) {
      for (int64_t i = 0; i < args.group * args.head_dim; ++i) *to++ = args.q[r * args.q_stride + i] * args.scale;
    }
  }

  template <int R, int P>
  __attribute__((always_inline)) void run_scores(int64_t first, int64_t position, float* to) const {
    const KeyPanels<P> keys(args, position);
    Tile<R, P> tile;
    clear(tile);
    Kv::template multiply<R, P>(tile, keys.line, q + first * args.head_dim, args.head_dim, args.head_dim, keys.next);
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < P * kPanelVectors; ++v) store(to + r * kAttentionTile + v * kLanes, tile.sum[r][v]);
    }
  }

  void weigh(int64_t, int64_t, int64_t, int64_t) const {}

  template <int R, int P>
  __attribute__((always_inline)) void run_values(int64_t first, int64_t tile_position, int64_t valid,
                                                 int64_t panel) const {
    Tile<R, P> tile;
    clear(tile);
    for (int64_t t = 0; t < valid; t += kKvBlock) {
      const ValuePanels<P> values(args, tile_position + t, panel);
      Kv::template multiply<R, P>(tile, values.line, scores + first * kAttentionTile + t, kAttentionTile,
                                  smaller(kKvBlock, valid - t), values.next);
    }
    for (int r = 0; r < R; ++r) {
      const Floats factor = splat(state_of(first + r)[2]);
      for (int v = 0; v < P * kPanelVectors; ++v) {
        float* out = state_of(first + r) + 16 + panel * kPanelRows + v * kLanes;
        store(out, fma(load(out), factor, tile.sum[r][v]));
      }
    }
  }
};

}  // namespace

void attend_floats(const AttendArgs& args) {
  if (args.format == KvFormat::f32) return attend_of<FloatWork<F32Kv>>(args);
  attend_of<FloatWork<Bf16Kv>>(args);
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

// Values of a panel, zeros behind the last. Loops of a known length, for the compiler.
void round_panel(const float* x, int64_t count, uint16_t* to) {
  float padded[kPanelRows] = {};
  if (count < kPanelRows) {
    for (int64_t i = 0; i < count; ++i) padded[i] = x[i];
    x = padded;
  }
  for (int64_t i = 0; i < kPanelRows; ++i) to[i] = bf16_from_float(x[i]);
}

// Of a line that holds two tokens no more than this one's half is touched: another thread may write the other.
void write_bf16(const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* keys,
                unsigned char* values) {
  unsigned char* half = values + token / 2 * 64 + token % 2 * 2;
  for (int64_t d = 0; d < head_dim; d += kPanelRows, half += kv_panel_bytes(KvFormat::bf16, kKvBlock)) {
    const int64_t count = head_dim - d < kPanelRows ? head_dim - d : kPanelRows;
    uint16_t rounded[kPanelRows];
    round_panel(k + d, count, rounded);
    for (int64_t i = 0; i < count; i += 2) __builtin_memcpy(keys + (d + i) / 2 * 64 + token * 4, rounded + i, 4);
    round_panel(v + d, count, rounded);
    for (int64_t i = 0; i < kPanelRows; ++i) __builtin_memcpy(half + i * 4, rounded + i, sizeof rounded[i]);
  }
}

void write_int8(const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* keys,
                unsigned char* values) {
  const auto code = [](int8_t number) { return static_cast<unsigned char>(number + 128); };
  int8_t numbers[kMostInt8HeadDim];
  float scale = quantise_int8(k, head_dim, numbers);
  __builtin_memcpy(keys + token * 4, &scale, sizeof scale);
  keys += kv_scale_bytes(KvFormat::int8);
  for (int64_t d = 0; d < head_dim; ++d) keys[d / 4 * 64 + token * 4 + d % 4] = code(numbers[d]);
  scale = quantise_int8(v, head_dim, numbers);
  __builtin_memcpy(values + token * 4, &scale, sizeof scale);
  values += kv_scale_bytes(KvFormat::int8);
  for (int64_t d = 0; d < head_dim; ++d) {
    unsigned char* panel = values + d / kPanelRows * kv_panel_bytes(KvFormat::int8, kKvBlock);
    panel[token / 4 * 64 + d % kPanelRows * 4 + token % 4] = code(numbers[d]);
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
