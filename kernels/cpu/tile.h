// The inner product tile all matrix work is made of: R rows of activations times P panels, every output one chain of
// fused multiply-adds over ascending inputs. Attention uses it too: a block of keys is a panel of 16 outputs (tokens).
#pragma once

#include "kernels/cpu/simd.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

// Most rows of a one-panel tile whose sums, weights and activation fit the registers.
#if defined(__AVX512F__)
constexpr int kRegisterRows = 12;
#elif defined(__AVX2__) || defined(__ARM_NEON)
constexpr int kRegisterRows = 6;
#else
constexpr int kRegisterRows = 3;
#endif

// Panels at a time for one, two and three rows.
struct RowPanels {
  int one, two, three;
  constexpr int of(int rows) const { return rows == 1 ? one : rows == 2 ? two : three; }
};
#if defined(__AVX512F__)
constexpr RowPanels kRowPanels = {8, 6, 4};
#elif defined(__AVX2__) || defined(__ARM_NEON)
constexpr RowPanels kRowPanels = {4, 2, 2};
#else
constexpr RowPanels kRowPanels = {2, 1, 1};
#endif

template <int R, int P>
struct Tile {
  Floats sum[R][P * kPanelVectors];
};

template <int R, int P>
EXPERT_INLINE void clear(Tile<R, P>& tile) {
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kPanelVectors; ++v) tile.sum[r][v] = Floats{};
  }
}

// f.run<rows>(row) for 1 <= rows <= Most.
template <int Most, class F>
EXPERT_INLINE void run_rows(int64_t rows, int64_t row, const F& f) {
  if constexpr (Most > 0) {
    if (rows == Most) {
      f.template run<Most>(row);
    } else {
      run_rows<Most - 1>(rows, row, f);
    }
  }
}

// Calls f.run<R>(row) for tiles of at most Most rows covering [first, last), of nearly equal height, so that no thin
// tile, slow for its short chains, is left over.
template <int Most, class F>
EXPERT_INLINE void over_tiles(int64_t first, int64_t last, const F& f) {
  const int64_t tiles = (last - first + Most - 1) / Most;
  int64_t row = first;
  for (int64_t t = 1; t <= tiles; ++t) {
    const int64_t end = first + (last - first) * t / tiles;
    run_rows<Most>(end - row, row, f);
    row = end;
  }
}

// What a step multiplies: a word of 32 bits of a row's activations with one vector of weights.
struct FloatStep {
  EXPERT_INLINE Floats value(const float* x) { return splat(*x); }
  EXPERT_INLINE Floats add(Floats sum, Floats value, Floats weight) { return fma(value, weight, sum); }
};

#if defined(__AVX512BF16__)
// Two inputs in BF16, the lower half first: sum + x1 w1, then + x0 w0, each rounded once; subnormal numbers count as zero.
struct PairStep {
  EXPERT_INLINE Words value(const float* x) {
    uint32_t bits;
    __builtin_memcpy(&bits, x, sizeof bits);
    return bits - Words{};
  }
  EXPERT_INLINE Floats add(Floats sum, Words value, Floats weight) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(value), reinterpret_cast<__m512bh>(weight));
  }
};
#endif

// sum[r] += x[r * x_stride] * W for one step, with w(v) the weights of vector v. Few rows take a weight at a time,
// many rows an activation at a time: so accumulators and operands fit the registers.
template <int R, int P, class Step = FloatStep, class Weights>
EXPERT_INLINE void multiply_input(Tile<R, P>& tile, const float* x, int64_t x_stride, const Weights& w) {
  constexpr int kVectors = P * kPanelVectors;
  if constexpr (R > kVectors) {
    Floats weight[kVectors];
    for (int v = 0; v < kVectors; ++v) weight[v] = w(v);
    for (int r = 0; r < R; ++r) {
      const auto value = Step::value(x + r * x_stride);
      for (int v = 0; v < kVectors; ++v) tile.sum[r][v] = Step::add(tile.sum[r][v], value, weight[v]);
    }
  } else {
    for (int v = 0; v < kVectors; ++v) {
      const Floats weight = w(v);
      for (int r = 0; r < R; ++r) tile.sum[r][v] = Step::add(tile.sum[r][v], Step::value(x + r * x_stride), weight);
    }
  }
}

// What asks for lines before they are needed, as a tile reaches the bytes `at` of its panels. Few products of each line
// leave it to the hardware, which follows a long panel well.
template <int R, int P>
struct LongPanels {
  static constexpr int64_t kLinePrefetch = 2048;
  const unsigned char* const (&line)[P];
  __attribute__((always_inline)) void reach(int64_t at) const {
    if constexpr (R > 3) {
      for (int p = 0; p < P; ++p) __builtin_prefetch(line[p] + at + kLinePrefetch);
    }
  }
};

struct NoPrefetch {
  __attribute__((always_inline)) void reach(int64_t) const {}
};

// Panels too short for the hardware: those that come next.
template <int P>
struct NextPanels {
  const unsigned char* line[P];
  __attribute__((always_inline)) void reach(int64_t at) const {
    for (int p = 0; p < P; ++p) __builtin_prefetch(line[p] + at, 0, 2);
  }
};

EXPERT_INLINE Words line_words(const unsigned char* line, int v) {
  return load_words(line + v % kPanelVectors * static_cast<int>(sizeof(Words)));
}

// multiply: sum[r] += x[r, 0..inputs) * W over the lines that start at line[p].
struct F32Panel {
  typedef FloatStep Step;
  static constexpr RowPanels kPanels = kRowPanels;
  static constexpr Storage kStorage = Storage::f32;
  static constexpr int kTileRows = kRegisterRows;

  template <int R, int P>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs) {
    multiply<R, P>(tile, line, x, x_stride, inputs, NoPrefetch{});
  }

  template <int R, int P, class Prefetch>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs, const Prefetch& prefetch) {
    for (int64_t k = 0; k < inputs; ++k) {
      prefetch.reach(k * 64);
      multiply_input<R, P>(
          tile, x + k, x_stride, [&](int v) __attribute__((always_inline)) {
            return reinterpret_cast<Floats>(line_words(line[v / kPanelVectors] + k * 64, v));
          });
    }
  }
};

#if defined(__AVX512BF16__)
// A BF16 panel as lines of pairs of inputs, which lie as the lines of an F32 panel do; x and `inputs` are pairs too.
struct PairPanel {
  typedef PairStep Step;
  // One step a line: a chain or two are faster than memory, which likes few places to read from.
  static constexpr RowPanels kPanels = {1, 2, 2};
  static constexpr Storage kStorage = Storage::f32;
  static constexpr int kTileRows = kRegisterRows;

  template <int R, int P>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs) {
    const LongPanels<R, P> prefetch{line};
    for (int64_t j = 0; j < inputs; ++j) {
      prefetch.reach(j * 64);
      multiply_input<R, P, Step>(
          tile, x + j, x_stride, [&](int v) __attribute__((always_inline)) {
            return reinterpret_cast<Floats>(line_words(line[v / kPanelVectors] + j * 64, v));
          });
    }
  }
};
#endif

struct Bf16Panel {
  typedef FloatStep Step;
  static constexpr RowPanels kPanels = kRowPanels;
  static constexpr Storage kStorage = Storage::bf16;
  static constexpr int kTileRows = kRegisterRows < 6 ? kRegisterRows : kRegisterRows - 1;  // the mask takes a register

  template <int R, int P>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs) {
    multiply<R, P>(tile, line, x, x_stride, inputs, LongPanels<R, P>{line});
  }

  template <int R, int P, class Prefetch>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs, const Prefetch& prefetch) {
    int64_t j = 0;
    const auto low = [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(line_words(line[v / kPanelVectors] + j * 64, v) << 16);
    };
    const auto high = [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(line_words(line[v / kPanelVectors] + j * 64, v) & 0xFFFF0000U);
    };
    for (; j < inputs / 2; ++j) {
      prefetch.reach(j * 64);
      multiply_input<R, P>(tile, x + 2 * j, x_stride, low);
      multiply_input<R, P>(tile, x + 2 * j + 1, x_stride, high);
    }
    if (inputs % 2 != 0) multiply_input<R, P>(tile, x + inputs - 1, x_stride, low);
  }
};

// The weights of one panel and input block as F32 lines; the values are exact.
EXPERT_INLINE void widen(const unsigned char* line, int64_t inputs, float* to) {
  for (int64_t j = 0; j < (inputs + 1) / 2; ++j) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const Words pair = line_words(line + j * 64, v);
      store(to + 2 * j * kPanelRows + v * kLanes, reinterpret_cast<Floats>(pair << 16));
      store(to + (2 * j + 1) * kPanelRows + v * kLanes, reinterpret_cast<Floats>(pair & 0xFFFF0000U));
    }
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
