// Attention over INT8 keys and values, in whole numbers: queries, and the probabilities of a tile times the scales of
// their values, become codes of 14 bits and a sign, x ~ scale * code, 128 times finer than what they meet. Sums are
// exact, so every instruction set and every shape of a tile has the same ones.
//
// Keys and values lie in the lines of INT8 weights (formats.h), so the steps of dot.h apply. Where a step takes bytes,
// a code is two of them, code = 128 * high + low; where it takes 16-bit halves, it is one.
#include "kernels/cpu/attention_flow.h"
#include "kernels/cpu/dot.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int kPlanes = Int8Dot::kInputs == 4 ? 2 : 1;  // products per step
constexpr float kMostCode = 127 * 128;                  // 1024 inputs times 127 times this fit 32 bits

// Codes of some rows of `inputs` values each (a multiple of 16).
struct CodeRows {
  int64_t inputs;
  uint32_t* words;  // [rows, inputs / 2]
  float* scale;     // [rows]
  int32_t* zero;    // [rows]: what the zero point of keys and values adds to every sum

  static constexpr int64_t size(int64_t rows, int64_t inputs) { return rows * (inputs / 2 + 2); }
  static CodeRows at(float* memory, int64_t rows, int64_t inputs) {
    float* scale = memory + rows * (inputs / 2);
    return {inputs, reinterpret_cast<uint32_t*>(memory), scale, reinterpret_cast<int32_t*>(scale + rows)};
  }
  // What multiplies four inputs in plane or step `i`.
  __attribute__((always_inline)) uint32_t word(int64_t row, int64_t four, int i) const {
    const uint32_t* own = words + row * (inputs / 2);
    return kPlanes == 2 ? own[i * (inputs / 4) + four] : own[2 * four + i];
  }
};

EXPERT_INLINE void store_codes(Ints codes, int64_t inputs, int64_t at, uint32_t* words) {
#if defined(__AVX512VNNI__)
  auto* bytes = reinterpret_cast<unsigned char*>(words) + at;
  const auto lanes = reinterpret_cast<__m512i>(codes);
  const __m512i low = _mm512_and_si512(lanes, _mm512_set1_epi32(127));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes),
                   _mm512_maskz_cvtepi32_epi8(0xFFFF, _mm512_maskz_srai_epi32(0xFFFF, lanes, 7)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + inputs), _mm512_maskz_cvtepi32_epi8(0xFFFF, low));
#else
  int32_t code[kLanes];
  __builtin_memcpy(code, &codes, sizeof codes);
  if constexpr (kPlanes == 2) {
    auto* bytes = reinterpret_cast<unsigned char*>(words) + at;
    for (int i = 0; i < kLanes; ++i) bytes[i] = static_cast<unsigned char>(code[i] >> 7);
    for (int i = 0; i < kLanes; ++i) bytes[inputs + i] = static_cast<unsigned char>(code[i] & 127);
  } else {
    for (int i = 0; i < kLanes; i += 4, at += 4) {  // Pair takes inputs 0 and 2, then 1 and 3
      words[at / 2] = (static_cast<uint32_t>(code[i]) & 0xFFFF) | static_cast<uint32_t>(code[i + 2]) << 16;
      words[at / 2 + 1] = (static_cast<uint32_t>(code[i + 1]) & 0xFFFF) | static_cast<uint32_t>(code[i + 3]) << 16;
    }
  }
#endif
}

// A row with a value that is not finite gets a NaN for a scale, one too small for a normal scale becomes zeros.
EXPERT_INLINE void encode(const float* x, const CodeRows& to, int64_t row) {
  Floats most = {};
  Floats poison = {};
  for (int64_t i = 0; i < to.inputs; i += kLanes) {
    const Floats v = load(x + i);
    most = max(most, max(v, -v));
    poison += v - v;
  }
  const float top = max_lanes(most);
  const float bad = sum_lanes(poison);
  const float scale = top / kMostCode;
  const bool usable = scale >= 0x1p-126F && bad == 0;
  to.scale[row] = usable ? scale : bad;
  const Floats inverse = splat(usable ? kMostCode / top : 0.0F);
  const Floats magic = splat(0x1.8p23F);
  Ints sum = {};
  for (int64_t i = 0; i < to.inputs; i += kLanes) {
    const Floats shifted = (usable ? load(x + i) * inverse : Floats{}) + magic;
    const Ints codes = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(magic);
    sum += codes;
    store_codes(codes, to.inputs, i, to.words + row * (to.inputs / 2));
  }
  to.zero[row] = Int8Codes::kZero * sum_lanes(sum);
}

template <int R, int P>
struct CodeTile {
  Int8Dot::Sum sum[R][P * kPanelVectors][kPlanes];

  __attribute__((always_inline)) CodeTile() {
    for (auto& row : sum)
      for (auto& vector : row)
        for (auto& plane : vector) plane = Int8Dot::Sum{};
  }

  // sum[r] += codes[row + r, 4 first ... 4 last) times the lines that start at line[p].
  template <class Prefetch>
  __attribute__((always_inline)) void multiply(const unsigned char* const (&line)[P], const CodeRows& codes,
                                               int64_t row, int64_t first, int64_t last, const Prefetch& prefetch) {
    for (int64_t four = first; four < last; ++four) {
      const int64_t at = (four - first) * 64;
      prefetch.reach(at);
      for (int v = 0; v < P * kPanelVectors; ++v) {
        Words step[Int8Codes::kSteps];
        Int8Codes::unpack(line_words(line[v / kPanelVectors] + at, v), step);
        for (int r = 0; r < R; ++r) {
          for (int i = 0; i < 2; ++i) {
            Int8Dot::Sum& to = sum[r][v][i % kPlanes];
            to = Int8Dot::add(to, step[i % Int8Codes::kSteps], splat_words(codes.word(row + r, four, i)));
          }
        }
      }
    }
  }

  // The true sum of products of codes.
  __attribute__((always_inline)) Floats total(int r, int v, const CodeRows& codes, int64_t row) const {
    Ints whole = Int8Dot::total(sum[r][v][0]);
    if constexpr (kPlanes == 2) whole = (whole << 7) + Int8Dot::total(sum[r][v][1]);
    return to_floats(whole - codes.zero[row + r]);
  }
};

// Rows of a tile and panels side by side, as many as the registers hold.
#if defined(__AVX512F__)
constexpr int kCodeRegisters = 24;
constexpr int kCodeTileRows = 6;
#elif defined(__ARM_NEON)
constexpr int kCodeRegisters = 24;
constexpr int kCodeTileRows = kCodeRegisters / (kPanelVectors * kPlanes);
#else
constexpr int kCodeRegisters = 12;
constexpr int kCodeTileRows = kPlanes == 1 && kPanelVectors == 2 ? 4 : 3;  // products of Pair take registers too
#endif

template <int R>
constexpr int code_panels() {
  constexpr int kOne = R * kPanelVectors * kPlanes;
  return kOne * 4 <= kCodeRegisters ? 4 : kOne * 2 <= kCodeRegisters ? 2 : 1;
}

struct Int8Work : States {
  static constexpr int kTileRows = kCodeTileRows;
  template <int R>
  static constexpr int kPanels = code_panels<R>();
  template <int R>
  static constexpr int kAllPanels = 0;

  CodeRows q;
  CodeRows p;

  explicit Int8Work(const AttendArgs& given) : States{given, given.rows * given.group, nullptr, nullptr} {
    const int64_t inputs = panel_count(args.head_dim) * kPanelRows;
    q = CodeRows::at(args.scratch, count, inputs);
    p = CodeRows::at(args.scratch + CodeRows::size(count, inputs), count, kAttentionTile);
    scores = args.scratch + CodeRows::size(count, inputs) + CodeRows::size(count, kAttentionTile);
    state = scores + count * kAttentionTile;
    float row[kMostInt8HeadDim];
    for (int64_t i = args.head_dim; i < inputs; ++i) row[i] = 0;
    for (int64_t s = 0; s < count; ++s) {
      const float* from = args.q + s / args.group * args.q_stride + s % args.group * args.head_dim;
      for (int64_t i = 0; i < args.head_dim; ++i) row[i] = from[i] * args.scale;
      encode(row, q, s);
    }
  }

  template <int R, int P>
  __attribute__((always_inline)) void run_scores(int64_t first, int64_t position, float* to) const {
    const KeyPanels<P> keys(args, position);
    for (int b = 0; b < P; ++b) {  // values with their scales are a line longer
      __builtin_prefetch(keys.next.line[b] + kv_panel_bytes(KvFormat::int8, args.head_dim));
    }
    CodeTile<R, P> tile;
    tile.multiply(keys.line, q, first, 0, (args.head_dim + 3) / 4, keys.next);
    for (int v = 0; v < P * kPanelVectors; ++v) {
      const unsigned char* scales = keys.line[v / kPanelVectors] - kv_scale_bytes(KvFormat::int8);
      const auto scale = reinterpret_cast<Floats>(line_words(scales, v));
      for (int r = 0; r < R; ++r) {
        store(to + r * kAttentionTile + v * kLanes, tile.total(r, v, q, first) * (scale * splat(q.scale[first + r])));
      }
    }
  }

  // Values that a row does not see may be anything, NaN too.
  void weigh(int64_t first, int64_t last, int64_t tile_position, int64_t valid) const {
    float scales[kAttentionTile];
    for (int64_t t = 0; t < kAttentionTile; t += kKvBlock) {
      if (t >= valid) break;
      __builtin_memcpy(scales + t, block_of(args, tile_position + t) + kv_k_bytes(KvFormat::int8, args.head_dim),
                       kKvBlock * sizeof(float));
    }
    for (int64_t t = valid; t < kAttentionTile; ++t) scales[t] = 0;
    float row[kAttentionTile];
    for (int64_t s = first; s < last; ++s) {
      const float* probability = scores + s * kAttentionTile;
      for (int64_t t = 0; t < kAttentionTile; t += kLanes) store(row + t, load(probability + t) * load(scales + t));
      encode(row, p, s);
    }
  }

  template <int R, int P>
  __attribute__((always_inline)) void run_values(int64_t first, int64_t tile_position, int64_t valid,
                                                 int64_t panel) const {
    CodeTile<R, P> tile;
    for (int64_t t = 0; t < valid; t += kKvBlock) {
      const ValuePanels<P> values(args, tile_position + t, panel);
      tile.multiply(values.line, p, first, t / 4, (smaller(t + kKvBlock, valid) + 3) / 4, values.next);
    }
    for (int r = 0; r < R; ++r) {
      const Floats factor = splat(state_of(first + r)[2]);
      const Floats scale = splat(p.scale[first + r]);
      for (int v = 0; v < P * kPanelVectors; ++v) {
        float* out = state_of(first + r) + 16 + panel * kPanelRows + v * kLanes;
        store(out, fma(load(out), factor, tile.total(r, v, p, first) * scale));
      }
    }
  }
};

}  // namespace

void attend_codes(const AttendArgs& args) { attend_of<Int8Work>(args); }

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
