// What experts add to a linear layer: all their A x in one pass over x, then all their B t folded into the base product
// together with the scales and biases. Every sum runs over ascending inputs, then ascending terms, whatever the tile.
#include <stddef.h>

#include "kernels/cpu/factor_rows.h"
#include "kernels/cpu/narrow_terms.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

// Factor rows at a time, and how many rows of x when there are several: sums, inputs and weights fit the registers.
constexpr int kFactors = 4;
#if defined(__AVX512F__)
constexpr int kManyInputs = 4;
constexpr int kManyPanels = 2;  // of B, for several rows: a value of t is read once for them
#else
constexpr int kManyInputs = 2;
constexpr int kManyPanels = 1;
#endif

// One row of x meets every line of the factors once, in pieces too short for the hardware to follow: it asks for what is
// read this much later, for the second-level cache, because the first has too little room for requests to keep the memory
// busy. Of B 2 KB on Zen 3: ten experts decode in 0.974 of the time that 8 KB take, with 1 KB in 1.02 of that.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int64_t kShrinkAhead = 8192;
constexpr int64_t kExpandAhead = 2048;
#else
constexpr int64_t kShrinkAhead = 12288;
constexpr int64_t kExpandAhead = 12288;
#endif
EXPERT_INLINE void ask_for(const unsigned char* line) { __builtin_prefetch(line, 0, 2); }

// The inputs after the last whole line, zero-padded.
template <class Line, int M, int R>
EXPERT_INLINE void add_rest(Dots<M, R>& dots, const typename Line::Row (&row)[R], int64_t step,
                            const float* const (&x)[M], int64_t count) {
  float padded[M][Line::kInputs] = {};
  const float* from[M];
  for (int m = 0; m < M; ++m) {
    __builtin_memcpy(padded[m], x[m], static_cast<size_t>(count) * sizeof(float));
    from[m] = padded[m];
  }
  Line::template add<M, R>(dots, row, step, from);
}

// Apart from the tiles, which would hold many copies of it.
template <class Row>
__attribute__((noinline)) void put_dots(const ShrinkArgs& a, int64_t row, int64_t rows, int64_t factor, int64_t factors,
                                        const float* sums) {
  for (int64_t m = 0; m < rows; ++m) {
    const float* x = a.x + (row + m) * a.x_stride;
    for (int64_t r = 0; r < factors; ++r, sums += kLanes) {
      const float dot = sum_lanes(load(sums)) + Row::rest(a.factors[factor + r], x);
      a.t[(row + m) * a.t_stride + factor + r] = a.weights[factor + r] * dot;
    }
  }
}

// Asks for factor rows that are read later, one row after the other: a tile's rows line by line in turns are four short
// streams, which Zen 3 follows less well (from memory up to 1.45 times the time; elsewhere it was not measured).
class LaterRows {
 public:
  __attribute__((always_inline)) LaterRows(const ShrinkArgs& a, int64_t first, int64_t row_bytes)
      : a_(a), row_(first - 1), row_bytes_(row_bytes) {
    begin_next();
  }

  // The next lines, row after row.
  __attribute__((always_inline)) void ask_next(int64_t lines) {
    for (int64_t i = 0; i < lines; ++i) {
      ask_for(line_);
      line_ += 64;
      if (line_ >= end_) begin_next();
    }
  }

 private:
  __attribute__((always_inline)) void begin_next() {
    ++row_;
    line_ = a_.factors[row_ < a_.count ? row_ : a_.count - 1];
    end_ = line_ + row_bytes_;
  }

  const ShrinkArgs& a_;
  int64_t row_;
  int64_t row_bytes_;
  const unsigned char* line_ = nullptr;
  const unsigned char* end_ = nullptr;
};

// M rows of x against R factor rows.
template <class Line, int M, int R>
EXPERT_INLINE void shrink_tile(const ShrinkArgs& a, int64_t row, int64_t factor, int64_t factors_ahead) {
  typename Line::Row factors[R];
  const float* x[M];
  for (int r = 0; r < R; ++r) factors[r].open(a.factors[factor + r]);
  for (int m = 0; m < M; ++m) x[m] = a.x + (row + m) * a.x_stride;
  Dots<M, R> dots;
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) dots.sum[m][r] = Floats{};
  }
  const int64_t row_lines = factor_row_bytes(Line::kStorage, a.inputs) / 64;
  const int64_t steps = a.inputs / Line::kInputs;
  LaterRows later(a, factor + factors_ahead, row_lines * 64);
  if constexpr (M == 1) later.ask_next(R * (row_lines - steps * Line::kBytes / 64));  // heads, and what follows the last step
  int64_t step = 0;
  for (; step < steps; ++step) {
    if constexpr (M == 1) later.ask_next(R * Line::kBytes / 64);
    Line::template add<M, R>(dots, factors, step, x);
    for (int m = 0; m < M; ++m) x[m] += Line::kInputs;
  }
  if (step * Line::kInputs < a.inputs) add_rest<Line, M, R>(dots, factors, step, x, a.inputs - step * Line::kInputs);
  float sums[M * R * kLanes];
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) store(sums + (m * R + r) * kLanes, dots.sum[m][r]);
  }
  put_dots<typename Line::Row>(a, row, M, factor, R, sums);
}

template <class Line, int M>
struct FactorTiles {
  const ShrinkArgs& a;
  int64_t row;
  int64_t factors_ahead;

  template <int R>
  __attribute__((always_inline)) void run(int64_t factor) const {
    shrink_tile<Line, M, R>(a, row, factor, factors_ahead);
  }
};

template <class Line>
void shrink_of(const ShrinkArgs& a) {
  const int64_t rows_of_it = kShrinkAhead / factor_row_bytes(Line::kStorage, a.inputs);
  const int64_t factors_ahead = rows_of_it > kFactors ? rows_of_it : kFactors;
  const auto all_factors = [&](auto tiles) __attribute__((always_inline)) {
    for (int64_t j = a.begin; j < a.end; j += kFactors)
      run_rows<kFactors>(a.end - j < kFactors ? a.end - j : kFactors, j, tiles);
  };
  int64_t row = 0;  // a few rows of x stay in the first-level cache while all factors pass by
  for (; row + kManyInputs <= a.rows; row += kManyInputs) all_factors(FactorTiles<Line, kManyInputs>{a, row, 0});
  for (; row < a.rows; ++row) all_factors(FactorTiles<Line, 1>{a, row, factors_ahead});
}

#if defined(EXPERT_NARROW)
// Many rows of x: a few factor rows are widened for all rows of a block that stays in the second-level cache.
void shrink_widened(const ShrinkArgs& a) {
  constexpr int64_t kRows = 64;
  alignas(64) unsigned char widened[kFactors][kNarrowRowHead + kWidenedInputs * 2];
  const unsigned char* rows[kFactors];
  ShrinkArgs part = a;
  part.factors = rows;
  part.begin = 0;
  for (int64_t first = 0; first < a.rows; first += kRows) {
    part.rows = a.rows - first < kRows ? a.rows - first : kRows;
    part.x = a.x + first * a.x_stride;
    for (int64_t j = a.begin; j < a.end; j += kFactors) {
      part.end = a.end - j < kFactors ? a.end - j : kFactors;
      part.count = part.end;
      part.weights = a.weights + j;
      part.t = a.t + first * a.t_stride + j;
      for (int64_t r = 0; r < part.end; ++r) {
        widen_row(a.factors[j + r], a.inputs, widened[r]);
        rows[r] = widened[r];
      }
      shrink_of<WidenedLine>(part);
    }
  }
}
#endif

// The half line of an odd last rank.
EXPERT_INLINE Floats half_line(const unsigned char* line, int v) {
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  Halves bits;
  __builtin_memcpy(&bits, line + v % kPanelVectors * static_cast<int>(sizeof bits), sizeof bits);
  return reinterpret_cast<Floats>(__builtin_convertvector(bits, Words) << 16);
}

struct AskFor {
  const unsigned char* lines;
  __attribute__((always_inline)) void reach(int64_t at) const { ask_for(lines + at); }
};

// Walks over the terms of one panel after the other, kExpandAhead before the tile that is computed, or as near to that as
// whole terms come.
class LaterTerms {
 public:
  LaterTerms(const ExpandArgs& a, int64_t panel) : a_(a), panel_(panel) {
    for (int64_t ahead = 0; a.count > 0 && ahead < kExpandAhead; pass()) ahead += bytes();
  }

  __attribute__((always_inline)) AskFor next() {
    const AskFor lines{a_.terms[term_].panels + panel_ * bytes()};
    pass();
    return lines;
  }

 private:
  int64_t bytes() const { return factor_panel_bytes(a_.terms[term_].storage, a_.terms[term_].rank); }
  void pass() {
    if (++term_ < a_.count) return;
    term_ = 0;
    ++panel_;
  }

  const ExpandArgs& a_;
  int64_t panel_;
  int64_t term_ = 0;
};

struct NoTerms {
  NoPrefetch next() { return {}; }
};

template <class Panel, int R, int P, class Prefetch>
EXPERT_INLINE void add_term(Tile<R, P>& tile, const ExpandTerm& term, int64_t panel, int64_t row,
                            const Prefetch& prefetch) {
  const float* t = term.t + row * term.t_stride;
  const int64_t bytes = factor_panel_bytes(Panel::kStorage, term.rank);
  const unsigned char* line[P];
  for (int p = 0; p < P; ++p) line[p] = term.panels + (panel + p) * bytes;
  const int64_t whole = Panel::kStorage == Storage::bf16 ? term.rank / 2 * 2 : term.rank;
  Panel::template multiply<R, P>(tile, line, t, term.t_stride, whole, prefetch);
  if (whole < term.rank) {
    multiply_input<R, P>(
        tile, t + whole, term.t_stride,
        [&](int v) __attribute__((always_inline)) { return half_line(line[v / kPanelVectors] + whole * 32, v); });
  }
}

// y of one vector from the base product on.
EXPERT_INLINE Floats bent(const ExpandArgs& a, Floats y, Floats sum, const float* const (&at)[4]) {
  if (at[0] != nullptr) y = y * load(at[0]);
  if (a.count > 0) y = y + sum;
  if (at[1] != nullptr) y = y + load(at[1]);
  if (at[2] != nullptr) y = y + load(at[2]);
  if (at[3] != nullptr) y = y * load(at[3]);
  return y;
}

// The vector at y[n] that ends behind the last output. Apart from the tiles, which would hold many copies of it.
__attribute__((noinline)) void bend_last(const ExpandArgs& a, int64_t row, int64_t n, const float* sum) {
  if (n >= a.outputs) return;
  const float* vectors[4] = {a.base_scale, a.base_bias, a.bias, a.result_scale};
  float* y = a.y + row * a.y_stride + n;
  const size_t bytes = static_cast<size_t>(a.outputs - n) * sizeof(float);
  float padded[4][kLanes] = {};
  for (int i = 0; i < 4; ++i) {
    if (vectors[i] == nullptr) continue;
    __builtin_memcpy(padded[i], vectors[i] + n, bytes);
    vectors[i] = padded[i];
  }
  float lanes[kLanes] = {};
  __builtin_memcpy(lanes, y, bytes);
  store(lanes, bent(a, load(lanes), load(sum), vectors));
  __builtin_memcpy(y, lanes, bytes);
}

// The last panel may have fewer outputs than lanes.
EXPERT_INLINE void bend(const ExpandArgs& a, int64_t row, int64_t n, Floats sum) {
  if (n + kLanes > a.outputs) {
    float lanes[kLanes];
    store(lanes, sum);
    return bend_last(a, row, n, lanes);
  }
  const float* vectors[4] = {a.base_scale, a.base_bias, a.bias, a.result_scale};
  for (const float*& vector : vectors) vector = vector == nullptr ? nullptr : vector + n;
  float* y = a.y + row * a.y_stride + n;
  store(y, bent(a, load(y), sum, vectors));
}

template <int R, int P, bool kWidened, class Later>
EXPERT_INLINE void expand_tile(const ExpandArgs& a, int64_t panel, int64_t row, Later& later) {
  Tile<R, P> tile;
  clear(tile);
  for (int64_t i = 0; i < a.count; ++i) {
    const auto prefetch = later.next();
#if defined(EXPERT_NARROW)
    if (a.terms[i].storage == Storage::narrow_bf16) {
      if constexpr (kWidened) {
        add_widened_term<R, P>(tile, a.terms[i], row);
      } else {
        add_narrow_term<R, P>(tile, a.terms[i], panel, row, prefetch);
      }
      continue;
    }
#endif
    if (a.terms[i].storage == Storage::bf16) {
      add_term<Bf16Panel, R, P>(tile, a.terms[i], panel, row, prefetch);
    } else {
      add_term<F32Panel, R, P>(tile, a.terms[i], panel, row, prefetch);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kPanelVectors; ++v) bend(a, row + r, panel * kPanelRows + v * kLanes, tile.sum[r][v]);
  }
}

template <int P, bool kWidened = false>
struct ExpandTiles {
  const ExpandArgs& a;
  int64_t panel;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    NoTerms none;
    expand_tile<R, P, kWidened>(a, panel, row, none);
  }
};

#if defined(EXPERT_NARROW)
constexpr int64_t kWidenedTerms = 64;
constexpr int64_t kWidenedPanels = 32768;  // of all terms' panels of a tile

bool may_be_widened(const ExpandArgs& a) {
  int64_t bytes = 0;
  for (int64_t i = 0; i < a.count; ++i) {
    if (a.terms[i].storage == Storage::narrow_bf16) bytes += kManyPanels * widened_panel_bytes(a.terms[i].rank);
  }
  return a.rows >= 2 * Bf16Panel::kTileRows && bytes > 0 && bytes <= kWidenedPanels && a.count <= kWidenedTerms;
}

// Many rows: the terms' panels are widened for all of them.
template <int P>
void expand_widened(const ExpandArgs& a, int64_t panel) {
  alignas(64) unsigned char widened[kWidenedPanels];
  ExpandTerm terms[kWidenedTerms];
  unsigned char* to = widened;
  for (int64_t i = 0; i < a.count; ++i) {
    terms[i] = a.terms[i];
    if (terms[i].storage == Storage::narrow_bf16) {
      terms[i].panels = to;
      to = widen_panels(a.terms[i], panel, P, to);
    }
  }
  ExpandArgs part = a;
  part.terms = terms;
  over_tiles<Bf16Panel::kTileRows>(0, a.rows, ExpandTiles<P, true>{part, panel});
}
#endif

}  // namespace

void shrink(Storage storage, const ShrinkArgs& args) {
  if (storage == Storage::f32) {
    shrink_of<F32Line>(args);
#if defined(EXPERT_NARROW)
  } else if (storage == Storage::narrow_bf16) {
    const bool widened = args.rows >= 4 * kManyInputs && args.inputs <= kWidenedInputs;
    widened ? shrink_widened(args) : shrink_of<NarrowLine>(args);
#endif
  } else {
    shrink_of<Bf16Line>(args);
  }
}

void expand(const ExpandArgs& args) {
  int64_t panel = args.panel_begin;
  if (args.rows == 1) {
    LaterTerms later(args, panel);
    for (; panel < args.panel_end; ++panel) expand_tile<1, 1, false>(args, panel, 0, later);
    return;
  }
#if defined(EXPERT_NARROW)
  if (may_be_widened(args)) {
    for (; panel + kManyPanels <= args.panel_end; panel += kManyPanels) expand_widened<kManyPanels>(args, panel);
    for (; panel < args.panel_end; ++panel) expand_widened<1>(args, panel);
    return;
  }
#endif
  for (; panel + kManyPanels <= args.panel_end; panel += kManyPanels)
    over_tiles<Bf16Panel::kTileRows>(0, args.rows, ExpandTiles<kManyPanels>{args, panel});
  for (; panel < args.panel_end; ++panel)
    over_tiles<Bf16Panel::kTileRows>(0, args.rows, ExpandTiles<1>{args, panel});
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
