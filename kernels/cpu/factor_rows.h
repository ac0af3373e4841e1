// How rows of A meet rows of x, a line or a unit at a time, in each storage (kernels/factors.h).
#pragma once

#include "kernels/cpu/narrow_panel.h"
#include "kernels/cpu/tile.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

template <int M, int R>
struct Dots {
  Floats sum[M][R];
};

struct PlainRow {
  const unsigned char* lines;
  void open(const unsigned char* row) { lines = row; }
  // What is not among the lines.
  static float rest(const unsigned char*, const float*) { return 0; }
};

// add: sum[m][r] += x[m] * row[r] over the inputs of the `step`-th line, or unit of four lines, of each row.
struct F32Line {
  static constexpr Storage kStorage = Storage::f32;
  static constexpr int64_t kInputs = 16;
  static constexpr int64_t kBytes = 64;

  typedef PlainRow Row;

  template <int M, int R>
  EXPERT_INLINE void add(Dots<M, R>& dots, const Row (&row)[R], int64_t step, const float* const (&x)[M]) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Floats in[M];
      for (int m = 0; m < M; ++m) in[m] = load(x[m] + v * kLanes);
      for (int r = 0; r < R; ++r) {
        const Floats weight = reinterpret_cast<Floats>(line_words(row[r].lines + step * kBytes, v));
        for (int m = 0; m < M; ++m) dots.sum[m][r] = fma(in[m], weight, dots.sum[m][r]);
      }
    }
  }
};

template <class RowOfLines>
struct Bf16Lines {
  static constexpr Storage kStorage = Storage::bf16;
  static constexpr int64_t kInputs = 32;
  static constexpr int64_t kBytes = 64;

  typedef RowOfLines Row;

  template <int M, int R>
  EXPERT_INLINE void add(Dots<M, R>& dots, const Row (&row)[R], int64_t step, const float* const (&x)[M]) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Floats low[M];
      Floats high[M];
      for (int m = 0; m < M; ++m) low[m] = load(x[m] + v * kLanes);
      for (int m = 0; m < M; ++m) high[m] = load(x[m] + 16 + v * kLanes);
      for (int r = 0; r < R; ++r) {
        const Words pair = line_words(row[r].lines + step * kBytes, v);
        const Floats first = reinterpret_cast<Floats>(pair << 16);
        const Floats second = reinterpret_cast<Floats>(pair & 0xFFFF0000U);
        for (int m = 0; m < M; ++m) dots.sum[m][r] = fma(low[m], first, dots.sum[m][r]);
        for (int m = 0; m < M; ++m) dots.sum[m][r] = fma(high[m], second, dots.sum[m][r]);
      }
    }
  }
};

typedef Bf16Lines<PlainRow> Bf16Line;

#if defined(EXPERT_NARROW)
struct NarrowRow {
  NarrowLines lines;
  __attribute__((always_inline)) void open(const unsigned char* row) { lines.open(row, kNarrowRowHead); }

  static float rest(const unsigned char* row, const float* x) {
    float sum = 0;
    for (int i = 0; i < row[1]; ++i) {
      uint16_t small[2];
      __builtin_memcpy(small, row + 4 + 4 * i, sizeof small);
      sum += x[small[0]] * float_from_bf16(small[1]);
    }
    return sum;
  }
};

struct NarrowLine {
  static constexpr Storage kStorage = Storage::narrow_bf16;
  static constexpr int64_t kInputs = kNarrowRowInputs;
  static constexpr int64_t kBytes = kNarrowUnitBytes;
  typedef NarrowRow Row;

  // Half a unit of each row in turn: a row's sum is one chain of additions, and a processor looks only so far for others to
  // make meanwhile (Zen 3, from cache: 0.84 of the time that whole units take).
  template <int M, int R>
  EXPERT_INLINE void add(Dots<M, R>& dots, const Row (&row)[R], int64_t step, const float* const (&x)[M]) {
    add_halves<0>(dots, row, step, x);
    add_halves<1>(dots, row, step, x);
  }

 private:
  template <int kHalf, int M, int R>
  EXPERT_INLINE void add_halves(Dots<M, R>& dots, const Row (&row)[R], int64_t step, const float* const (&x)[M]) {
    for (int r = 0; r < R; ++r) {
      HalfUnit lines;
      row[r].lines.template widen<kHalf>(step, lines);
      add_half(dots, r, lines, x, kHalf * kInputs / 2);
    }
  }

  template <int M, int R>
  EXPERT_INLINE void add_half(Dots<M, R>& dots, int r, const HalfUnit& lines, const float* const (&x)[M], int64_t k) {
    for (int i = 0; i < kUnitLines / 2; ++i, k += 32) {
      for (int v = 0; v < kPanelVectors; ++v) {
        const Floats first = reinterpret_cast<Floats>(lines[i][v] << 16);
        const Floats second = reinterpret_cast<Floats>(lines[i][v] & 0xFFFF0000U);
        for (int m = 0; m < M; ++m) dots.sum[m][r] = fma(load(x[m] + k + v * kLanes), first, dots.sum[m][r]);
        for (int m = 0; m < M; ++m) dots.sum[m][r] = fma(load(x[m] + k + 16 + v * kLanes), second, dots.sum[m][r]);
      }
    }
  }
};

// A narrow row whose lines were widened behind a copy of its head.
struct WidenedRow {
  const unsigned char* lines;
  void open(const unsigned char* row) { lines = row + kNarrowRowHead; }
  static float rest(const unsigned char* row, const float* x) { return NarrowRow::rest(row, x); }
};
typedef Bf16Lines<WidenedRow> WidenedLine;
constexpr int64_t kWidenedInputs = 4096;  // at most

EXPERT_INLINE void widen_row(const unsigned char* row, int64_t inputs, unsigned char* to) {
  __builtin_memcpy(to, row, kNarrowRowHead);
  widen_lines(row, kNarrowRowHead, inputs / kNarrowRowInputs, to + kNarrowRowHead);
}
#endif

}  // namespace

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
