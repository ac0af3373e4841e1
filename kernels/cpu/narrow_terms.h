// Narrow terms of expand(): panels of B that are widened on the way, or were widened before.
#pragma once

#include "kernels/cpu/narrow_panel.h"
#include "kernels/cpu/tile.h"

#if defined(EXPERT_NARROW)

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

// Two lines of units of P panels.
template <int R, int P>
EXPERT_INLINE void add_half_unit(Tile<R, P>& tile, const HalfUnit (&lines)[P], const float* t, int64_t t_stride) {
  for (int i = 0; i < kUnitLines / 2; ++i, t += 2) {
    const auto low = [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(lines[v / kPanelVectors][i][v % kPanelVectors] << 16);
    };
    const auto high = [&](int v) __attribute__((always_inline)) {
      return reinterpret_cast<Floats>(lines[v / kPanelVectors][i][v % kPanelVectors] & 0xFFFF0000U);
    };
    multiply_input<R, P>(tile, t, t_stride, low);
    multiply_input<R, P>(tile, t + 1, t_stride, high);
  }
}

// The values of a panel that are too small for its codes.
template <int R, int P>
EXPERT_INLINE void add_small(Tile<R, P>& tile, int p, const unsigned char* head, const float* t, int64_t t_stride) {
  for (int i = 0; i < head[1]; ++i) {
    uint16_t small[2];
    __builtin_memcpy(small, head + 4 + 4 * i, sizeof small);
    alignas(64) float line[kPanelRows] = {};
    line[small[0] % kPanelRows] = float_from_bf16(small[1]);
    for (int r = 0; r < R; ++r) {
      const Floats value = splat(t[r * t_stride + small[0] / kPanelRows]);
      for (int v = 0; v < kPanelVectors; ++v) {
        Floats& sum = tile.sum[r][p * kPanelVectors + v];
        sum = fma(value, load(line + v * kLanes), sum);
      }
    }
  }
}

template <int R, int P>
EXPERT_INLINE void add_all_small(Tile<R, P>& tile, const unsigned char* const (&head)[P], const float* t,
                                 int64_t t_stride) {
  for (int p = 0; p < P; ++p) {
    if (head[p][1] != 0) [[unlikely]] add_small<R, P>(tile, p, head[p], t, t_stride);
  }
}

template <int R, int P, class Prefetch>
EXPERT_INLINE void add_narrow_term(Tile<R, P>& tile, const ExpandTerm& term, int64_t panel, int64_t row,
                                   const Prefetch& prefetch) {
  const float* t = term.t + row * term.t_stride;
  const unsigned char* head[P];
  NarrowLines narrow[P];
  for (int p = 0; p < P; ++p) {
    head[p] = term.panels + (panel + p) * factor_panel_bytes(Storage::narrow_bf16, term.rank);
    narrow[p].open(head[p], narrow_panel_head(term.rank));
  }
  for (int64_t unit = 0; unit < term.rank / kNarrowInputs; ++unit) {
    for (int64_t at = 0; at < kNarrowUnitBytes; at += 64) prefetch.reach(unit * kNarrowUnitBytes + at);
    HalfUnit lines[P];
    for (int p = 0; p < P; ++p) narrow[p].template widen<0>(unit, lines[p]);
    add_half_unit<R, P>(tile, lines, t + unit * kNarrowInputs, term.t_stride);
    for (int p = 0; p < P; ++p) narrow[p].template widen<1>(unit, lines[p]);
    add_half_unit<R, P>(tile, lines, t + unit * kNarrowInputs + kNarrowInputs / 2, term.t_stride);
  }
  add_all_small<R, P>(tile, head, t, term.t_stride);
}

// Of a panel of B whose lines were widened behind a copy of its head; the panels of a tile stand alone.
constexpr int64_t widened_panel_bytes(int64_t rank) {
  return narrow_panel_head(rank) + factor_panel_bytes(Storage::bf16, rank);
}

template <int R, int P>
EXPERT_INLINE void add_widened_term(Tile<R, P>& tile, const ExpandTerm& term, int64_t row) {
  const float* t = term.t + row * term.t_stride;
  const unsigned char* head[P];
  const unsigned char* line[P];
  for (int p = 0; p < P; ++p) {
    head[p] = term.panels + p * widened_panel_bytes(term.rank);
    line[p] = head[p] + narrow_panel_head(term.rank);
  }
  Bf16Panel::multiply<R, P>(tile, line, t, term.t_stride, term.rank, NoPrefetch{});
  add_all_small<R, P>(tile, head, t, term.t_stride);
}

// Panels [first, first + count) to where add_widened_term() reads them; gives where the next term's come.
EXPERT_INLINE unsigned char* widen_panels(const ExpandTerm& term, int64_t first, int64_t count, unsigned char* to) {
  const int64_t head_bytes = narrow_panel_head(term.rank);
  for (int64_t p = first; p < first + count; ++p) {
    const unsigned char* head = term.panels + p * factor_panel_bytes(Storage::narrow_bf16, term.rank);
    __builtin_memcpy(to, head, static_cast<size_t>(head_bytes));
    to = widen_lines(head, head_bytes, term.rank / kNarrowInputs, to + head_bytes);
  }
  return to;
}

}  // namespace

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE

#endif
