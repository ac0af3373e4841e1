// Products with narrow BF16, bit for bit those with BF16: units are widened in registers and multiplied there. Many rows of floats
// get them widened into scratch.
#include "kernels/cpu/narrow_panel.h"

#if defined(EXPERT_NARROW)

#include "kernels/cpu/gemm_rows.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kUnitsAhead = 16;  // asked for ahead of several rows, which the hardware does not follow well
// Likewise of one row, on Zen 3 (0.90 to 0.96 of the time); Zen 4 is faster without.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int64_t kUnitsAheadOfOneRow = 4;
#else
constexpr int64_t kUnitsAheadOfOneRow = 0;
#endif
template <int R>
constexpr int64_t kUnitsAheadOf = R > 3 ? kUnitsAhead : R == 1 ? kUnitsAheadOfOneRow : 0;

// How a line meets x. A word of x is an input, or a pair of them.
#if defined(__AVX512BF16__)
struct LineOfPairs {
  static constexpr int64_t kWords = 1;
  static constexpr int kTileRows = PairPanel::kTileRows;
  // One row is as fast as memory with one panel; with two, two or three rows hide how long a step takes.
  static constexpr RowPanels kPanels = {1, 2, 2};

  template <int R, int P, class Weights>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const float* x, int64_t x_stride, const Weights& weights) {
    multiply_input<R, P, PairStep>(tile, x, x_stride, [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(weights(v));
    });
  }
};
typedef LineOfPairs Line;
#else
struct LineOfFloats {
  static constexpr int64_t kWords = 2;
  static constexpr int kTileRows = Bf16Panel::kTileRows;
  static constexpr RowPanels kPanels = {4 / kPanelVectors, kPanelVectors < 4 ? 2 : 1, kPanelVectors < 2 ? 2 : 1};

  template <int R, int P, class Weights>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const float* x, int64_t x_stride, const Weights& weights) {
    multiply_input<R, P>(tile, x, x_stride, [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(weights(v) << 16);
    });
    multiply_input<R, P>(tile, x + 1, x_stride, [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(weights(v) & 0xFFFF0000U);
    });
  }
};
typedef LineOfFloats Line;
#endif

constexpr int64_t kUnitWords = kNarrowInputs / 2 * Line::kWords;

// Half a unit of P panels.
template <int R, int P>
EXPERT_INLINE void multiply_half(Tile<R, P>& tile, const HalfUnit (&lines)[P], const float* x,
                                 int64_t x_stride) {
  for (int i = 0; i < kUnitLines / 2; ++i) {
    const auto weights = [&](int v) __attribute__((always_inline)) {
      return lines[v / kPanelVectors][i][v % kPanelVectors];
    };
    Line::multiply<R, P>(tile, x + i * Line::kWords, x_stride, weights);
  }
}

template <int R, int P>
EXPERT_INLINE void multiply_unit(Tile<R, P>& tile, const NarrowPanel (&narrow)[P], int64_t unit, const float* x,
                                 int64_t x_stride) {
  HalfUnit lines[P];
  for (int p = 0; p < P; ++p) narrow[p].template widen<0>(unit, lines[p]);
  multiply_half<R, P>(tile, lines, x, x_stride);
  for (int p = 0; p < P; ++p) narrow[p].template widen<1>(unit, lines[p]);
  multiply_half<R, P>(tile, lines, x + kUnitWords / 2, x_stride);
}

// A unit that has exceptions.
template <int R, int P>
EXPERT_INLINE void multiply_exceptions(Tile<R, P>& tile, NarrowPanel (&narrow)[P], int64_t unit, const float* x,
                                       int64_t x_stride) {
  alignas(64) unsigned char unpacked[P][kWidenedBytes];
  for (int p = 0; p < P; ++p) narrow[p].read(unit, unpacked[p]);
  HalfUnit lines[P];
  for (int half = 0; half < 2; ++half) {
    for (int p = 0; p < P; ++p) __builtin_memcpy(lines[p], unpacked[p] + half * sizeof lines[p], sizeof lines[p]);
    multiply_half<R, P>(tile, lines, x + half * (kUnitWords / 2), x_stride);
  }
}

// `a` counts inputs in words of x.
template <int R, int P>
EXPERT_INLINE void narrow_tile(const GemmArgs& a, int64_t panel, int64_t row) {
  const float* x = a.x + row * a.x_stride;
  NarrowPanel narrow[P];
  for (int p = 0; p < P; ++p) narrow[p].open(a.panels, a.inputs / kUnitWords * kNarrowInputs, panel + p);
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    const int64_t end = (k + block_inputs(a, k)) / kUnitWords;
    Tile<R, P> tile;
    clear(tile);
    for (int64_t unit = k / kUnitWords; unit < end; ++unit) {
      int64_t stop = end;
      for (int p = 0; p < P; ++p) stop = narrow[p].next_exception() < stop ? narrow[p].next_exception() : stop;
      for (; unit < stop; ++unit) {
        if constexpr (kUnitsAheadOf<R> > 0) {
          for (int p = 0; p < P; ++p) narrow[p].prefetch(unit + kUnitsAheadOf<R>);
        }
        multiply_unit<R, P>(tile, narrow, unit, x + unit * kUnitWords, a.x_stride);
      }
      if (unit < end) multiply_exceptions<R, P>(tile, narrow, unit, x + unit * kUnitWords, a.x_stride);
    }
    put_tile(a, tile, panel, row, k);
  }
}

struct NarrowTiles {
  const GemmArgs& a;
  int64_t panel;
  int64_t panels;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    if constexpr (R <= 3) {
      if (panels == Line::kPanels.of(R)) return narrow_tile<R, Line::kPanels.of(R)>(a, panel, row);
    }
    for (int64_t p = panel; p < panel + panels; ++p) narrow_tile<R, 1>(a, p, row);
  }
};

// A panel, or a few, at a time, so that memory gives it once.
void multiply_directly(const GemmArgs& a) {
  const int64_t step = a.rows <= 3 ? Line::kPanels.of(static_cast<int>(a.rows)) : 1;
  for (int64_t panel = a.panel_begin; panel < a.panel_end; panel += step) {
    const int64_t left = a.panel_end - panel;
    over_tiles<Line::kTileRows>(0, a.rows, NarrowTiles{a, panel, left < step ? left : step});
  }
}

#if !defined(__AVX512BF16__)

// Tiles over a block of a panel that was widened to BF16 lines.
struct WidenedTiles {
  const GemmArgs& a;
  const unsigned char* lines;
  int64_t panel;
  int64_t k;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    const unsigned char* const line[1] = {lines};
    Tile<R, 1> tile;
    clear(tile);
    Bf16Panel::multiply<R, 1>(tile, line, a.x + row * a.x_stride + k, a.x_stride, block_inputs(a, k), NoPrefetch{});
    put_tile(a, tile, panel, row, k);
  }
};

// More rows than a tile takes where registers are few: a block is widened once for all of them.
constexpr int64_t kRowsAtOnce = kLanes < 16 ? Line::kTileRows : 2 * Line::kTileRows;

void multiply_blocks(const GemmArgs& a) {
  auto* lines = reinterpret_cast<unsigned char*>(a.scratch);
  for (int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
    NarrowPanel narrow;
    narrow.open(a.panels, a.inputs, panel);
    for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
      const int64_t units = block_inputs(a, k) / kNarrowInputs;
      for (int64_t u = 0; u < units; ++u) {
        narrow.prefetch(k / kNarrowInputs + u + kUnitsAhead);
        narrow.read(k / kNarrowInputs + u, lines + u * kWidenedBytes);
      }
      over_tiles<Line::kTileRows>(0, a.rows, WidenedTiles{a, lines, panel, k});
    }
  }
}

#endif

}  // namespace

void gemm_narrow(const GemmArgs& args) {
  GemmArgs words = args;
  words.x = reinterpret_cast<const float*>(args.prepared);
#if defined(__AVX512BF16__)
  words.x_stride = pair_row_bytes(args.inputs) / static_cast<int64_t>(sizeof(float));
  words.inputs = args.inputs / 2;
#else
  words.x_stride = args.inputs;
  if (args.scratch != nullptr && args.rows >= kManyRows) return many_rows_of<NarrowFloatPanel>(words);
  if (args.scratch != nullptr && args.rows > kRowsAtOnce) return multiply_blocks(words);
#endif
  multiply_directly(words);
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE

#endif
