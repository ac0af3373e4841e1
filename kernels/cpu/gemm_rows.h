// y = x W^T over panels. Few rows go as many panels at a time as chains hide the latency, and every weight is read once, in
// order. Some rows go in register tiles straight from the panels. Many rows are cut along the inputs, the block's
// activations interleaved and its weights widened once, and both stay in cache for all tiles. All three sum every output in
// the same order.
#pragma once

#include "kernels/cpu/narrow_panel.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/turn_words.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kManyRows = 20;  // from here on preparing a block pays
constexpr int kManyPanels = kRegisterRows == 12 ? 2 : 1;  // of a tile then

// y[row + r, n..) of `rows` rows of `vectors` vectors: scale * sums, added or not; the last panel may have fewer outputs
// than lanes. Apart from the tiles, which would hold many copies of it.
__attribute__((noinline)) void put_rows(const GemmArgs& a, bool add, int64_t row, int64_t rows, int64_t n,
                                        int64_t vectors, const float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    float* y = a.y + (row + r) * a.y_stride + n;
    for (int64_t v = 0; v < vectors; ++v, y += kLanes, sums += kLanes) {
      const Floats value = load(sums) * splat(a.scale);
      if (n + (v + 1) * kLanes <= a.outputs) {
        store(y, add ? load(y) + value : value);
        continue;
      }
      float lanes[kLanes];
      store(lanes, value);
      for (int64_t i = 0; n + v * kLanes + i < a.outputs; ++i) y[i] = add ? y[i] + lanes[i] : lanes[i];
    }
  }
}

EXPERT_INLINE const unsigned char* block_of(Storage storage, const GemmArgs& a, int64_t panel, int64_t k) {
  return static_cast<const unsigned char*>(a.panels) + panel * panel_bytes(storage, a.inputs) + panel_bytes(storage, k);
}

template <int R, int P>
EXPERT_INLINE void put_tile(const GemmArgs& a, const Tile<R, P>& tile, int64_t panel, int64_t row, int64_t k) {
  float sums[R * P * kPanelRows];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kPanelVectors; ++v) store(sums + (r * P * kPanelVectors + v) * kLanes, tile.sum[r][v]);
  }
  put_rows(a, a.accumulate || k > 0, row, R, panel * kPanelRows, P * kPanelVectors, sums);
}

EXPERT_INLINE int64_t block_inputs(const GemmArgs& a, int64_t k) {
  return a.inputs - k < kInputBlock ? a.inputs - k : kInputBlock;
}

// One tile over one input block, straight from the panels.
template <class Panel, int R, int P>
EXPERT_INLINE void direct_tile(const GemmArgs& a, int64_t panel, int64_t row, int64_t k) {
  const unsigned char* line[P];
  for (int p = 0; p < P; ++p) line[p] = block_of(Panel::kStorage, a, panel + p, k);
  Tile<R, P> tile;
  clear(tile);
  Panel::template multiply<R, P>(tile, line, a.x + row * a.x_stride + k, a.x_stride, block_inputs(a, k));
  put_tile(a, tile, panel, row, k);
}

template <class Panel, int R, int P>
void few_rows_panels(const GemmArgs& a, int64_t panel) {
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) direct_tile<Panel, R, P>(a, panel, 0, k);
}

template <class Panel, int R>
void few_rows(const GemmArgs& a) {
  constexpr int kPanels = Panel::kPanels.of(R);
  int64_t panel = a.panel_begin;
  for (; panel + kPanels <= a.panel_end; panel += kPanels) few_rows_panels<Panel, R, kPanels>(a, panel);
  for (; panel < a.panel_end; ++panel) few_rows_panels<Panel, R, 1>(a, panel);
}

// Panels of a tile of so many rows: as many as the registers hold beside the weights, an activation and a mask.
constexpr int tile_panels(int64_t rows) {
#if defined(__AVX512F__)
  return rows <= 6 ? 4 : rows <= 9 ? 3 : 2;
#else
  return rows > 0 ? 1 : 0;
#endif
}

template <class Panel, int P>
struct DirectTiles {
  const GemmArgs& a;
  int64_t panel;
  int64_t k;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    if constexpr (P <= tile_panels(R)) direct_tile<Panel, R, P>(a, panel, row, k);
  }
};

template <class Panel, int P>
void some_rows_panels(const GemmArgs& a) {
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    int64_t panel = a.panel_begin;
    for (; panel + P <= a.panel_end; panel += P) {
      over_tiles<Panel::kTileRows>(0, a.rows, DirectTiles<Panel, P>{a, panel, k});
    }
    for (; panel < a.panel_end; ++panel) {
      over_tiles<Panel::kTileRows>(0, a.rows, DirectTiles<Panel, 1>{a, panel, k});
    }
  }
}

template <class Panel>
void some_rows(const GemmArgs& a) {
  const int64_t tiles = (a.rows + Panel::kTileRows - 1) / Panel::kTileRows;
  switch (tile_panels((a.rows + tiles - 1) / tiles)) {
    case 4:
      return some_rows_panels<Panel, 4>(a);
    case 3:
      return some_rows_panels<Panel, 3>(a);
    case 2:
      return some_rows_panels<Panel, 2>(a);
    default:
      return some_rows_panels<Panel, 1>(a);
  }
}

// x of one tile and input block as [input][row].
struct Interleave {
  const GemmArgs& a;
  int64_t first;  // row of the cached block
  int64_t k;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    const int64_t inputs = block_inputs(a, k);
    turn_words<R>(a.x + row * a.x_stride + k, a.x_stride * 4, inputs,
                  reinterpret_cast<unsigned char*>(a.scratch + (row - first) * inputs));
  }
};

// Tiles over interleaved rows and the F32 lines of P panels' block.
template <class Panel, int P>
struct CachedTiles {
  const GemmArgs& a;
  const float* weights[P];
  int64_t first;
  int64_t panel;
  int64_t k;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    const int64_t inputs = block_inputs(a, k);
    const float* x = a.scratch + (row - first) * inputs;
    Tile<R, P> tile;
    clear(tile);
    for (int64_t i = 0; i < inputs; ++i) {
      multiply_input<R, P, typename Panel::Step>(
          tile, x + i * R, 1, [&](int v) __attribute__((always_inline)) {
            return load(weights[v / kPanelVectors] + i * kPanelRows + v % kPanelVectors * kLanes);
          });
    }
    put_tile(a, tile, panel, row, k);
  }
};

#if defined(EXPERT_NARROW)
// Narrow BF16 for many rows of floats.
struct NarrowFloatPanel {
  typedef FloatStep Step;
  static constexpr Storage kStorage = Storage::narrow_bf16;

  EXPERT_INLINE void widen_block(const GemmArgs& a, int64_t panel, int64_t k, int64_t inputs, float* to) {
    NarrowPanel narrow;
    narrow.open(a.panels, a.inputs, panel);
    narrow.skip(k / kNarrowInputs);
    for (int64_t i = 0; i < inputs; i += kNarrowInputs) {
      alignas(64) unsigned char lines[kWidenedBytes];
      narrow.read((k + i) / kNarrowInputs, lines);
      widen(lines, kNarrowInputs, to + i * kPanelRows);
    }
  }
};
#endif

template <class Panel, int P>
void many_rows_panels(const GemmArgs& a, int64_t first, int64_t last, int64_t panel, int64_t k) {
  const int64_t inputs = block_inputs(a, k);
  CachedTiles<Panel, P> tiles{a, {}, first, panel, k};
  for (int p = 0; p < P; ++p) {
    float* widened = a.scratch + (kGemmRows + p * kPanelRows) * kInputBlock;
    if constexpr (Panel::kStorage == Storage::f32) {
      tiles.weights[p] = reinterpret_cast<const float*>(block_of(Storage::f32, a, panel + p, k));
    } else {
      if constexpr (Panel::kStorage == Storage::bf16) {
        widen(block_of(Storage::bf16, a, panel + p, k), inputs, widened);
      } else {
        Panel::widen_block(a, panel + p, k, inputs, widened);
      }
      tiles.weights[p] = widened;
    }
  }
  over_tiles<kRegisterRows>(first, last, tiles);
}

template <class Panel>
void many_rows(const GemmArgs& a, int64_t first, int64_t last) {
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    over_tiles<kRegisterRows>(first, last, Interleave{a, first, k});
    int64_t panel = a.panel_begin;
    for (; panel + kManyPanels <= a.panel_end; panel += kManyPanels) {
      many_rows_panels<Panel, kManyPanels>(a, first, last, panel, k);
    }
    for (; panel < a.panel_end; ++panel) many_rows_panels<Panel, 1>(a, first, last, panel, k);
  }
}

template <class Panel>
void many_rows_of(const GemmArgs& a) {
  for (int64_t row = 0; row < a.rows; row += kGemmRows) {
    many_rows<Panel>(a, row, row + kGemmRows < a.rows ? row + kGemmRows : a.rows);
  }
}

template <class Panel>
void gemm_of(const GemmArgs& a) {
  if (a.rows == 1) return few_rows<Panel, 1>(a);
  if (a.rows == 2) return few_rows<Panel, 2>(a);
  if (a.rows == 3) return few_rows<Panel, 3>(a);
  if (a.rows < kManyRows || a.scratch == nullptr) return some_rows<Panel>(a);
  many_rows_of<Panel>(a);
}

}  // namespace

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
