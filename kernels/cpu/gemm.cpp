// y = x W^T over panels: few rows go several panels at a time (latency is hidden by independent chains, weights are
// read once), many rows go in register tiles, cut along the inputs so that a panel's block and the rows' stay in cache.
#include "kernels/cpu/tile.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

// Register budget: rows x panels x vectors per panel accumulators, plus weights and broadcasts.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int kRowPanels[] = {8, 6, 4};
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
constexpr int kRowPanels[] = {4, 3, 2};
#elif defined(__ARM_NEON)
constexpr int kTileRows = 6;
constexpr int kRowPanels[] = {4, 2, 2};
#else
constexpr int kTileRows = 3;
constexpr int kRowPanels[] = {2, 1, 1};
#endif
constexpr int64_t kCachedRows = 192;  // rows of one input block kept in the second-level cache

// y[n] of one vector: scale * sum, added or not; the last panel may have fewer outputs than lanes.
EXPERT_INLINE void put(const GemmArgs& a, bool add, int64_t row, int64_t n, Floats sum) {
  const Floats value = sum * splat(a.scale);
  float* y = a.y + row * a.y_stride + n;
  if (n + kLanes <= a.outputs) {
    store(y, add ? load(y) + value : value);
    return;
  }
  float lanes[kLanes];
  store(lanes, value);
  for (int64_t i = 0; n + i < a.outputs; ++i) y[i] = add ? y[i] + lanes[i] : lanes[i];
}

// One tile over one input block.
template <class Panel, int R, int P>
EXPERT_INLINE void tile_block(const GemmArgs& a, int64_t panel, int64_t row, int64_t k, int64_t inputs) {
  const int64_t bytes = panel_bytes(Panel::kStorage, a.inputs);
  const unsigned char* line[P];
  for (int p = 0; p < P; ++p) {
    line[p] = static_cast<const unsigned char*>(a.panels) + (panel + p) * bytes + panel_bytes(Panel::kStorage, k);
  }
  Tile<R, P> tile;
  clear(tile);
  Panel::template multiply<R, P>(tile, line, a.x + row * a.x_stride + k, a.x_stride, inputs);
  const bool add = a.accumulate || k > 0;
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kPanelVectors; ++v) put(a, add, row + r, panel * kPanelRows + v * kLanes, tile.sum[r][v]);
  }
}

// All input blocks of P panels for R rows: each weight is read once, in order.
template <class Panel, int R, int P>
void few_rows_panels(const GemmArgs& a, int64_t panel) {
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    tile_block<Panel, R, P>(a, panel, 0, k, a.inputs - k < kInputBlock ? a.inputs - k : kInputBlock);
  }
}

template <class Panel, int R>
void few_rows(const GemmArgs& a) {
  constexpr int kPanels = kRowPanels[R - 1];
  int64_t panel = a.panel_begin;
  for (; panel + kPanels <= a.panel_end; panel += kPanels) few_rows_panels<Panel, R, kPanels>(a, panel);
  for (; panel < a.panel_end; ++panel) few_rows_panels<Panel, R, 1>(a, panel);
}

template <class Panel>
void tile_rows(const GemmArgs& a, int64_t panel, int64_t row, int64_t count, int64_t k, int64_t inputs) {
  switch (count) {
#define EXPERT_TILE(R) \
  case R:              \
    return tile_block<Panel, R, 1>(a, panel, row, k, inputs);
    EXPERT_TILE(1)
    EXPERT_TILE(2)
    EXPERT_TILE(3)
#if defined(__AVX2__) || defined(__ARM_NEON)
    EXPERT_TILE(4)
    EXPERT_TILE(5)
    EXPERT_TILE(6)
#endif
#if defined(__AVX512F__)
    EXPERT_TILE(7)
    EXPERT_TILE(8)
    EXPERT_TILE(9)
    EXPERT_TILE(10)
    EXPERT_TILE(11)
    EXPERT_TILE(12)
#endif
#undef EXPERT_TILE
    default:
      return;
  }
}

// Rows [first, last) in tiles of nearly equal height, so that no thin tile is left over.
template <class Panel>
void many_rows(const GemmArgs& a, int64_t first, int64_t last) {
  const int64_t tiles = (last - first + kTileRows - 1) / kTileRows;
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    const int64_t inputs = a.inputs - k < kInputBlock ? a.inputs - k : kInputBlock;
    for (int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
      int64_t row = first;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t end = first + (last - first) * (t + 1) / tiles;
        tile_rows<Panel>(a, panel, row, end - row, k, inputs);
        row = end;
      }
    }
  }
}

template <class Panel>
void gemm_of(const GemmArgs& a) {
  if (a.rows == 1) return few_rows<Panel, 1>(a);
  if (a.rows == 2) return few_rows<Panel, 2>(a);
  if (a.rows == 3) return few_rows<Panel, 3>(a);
  for (int64_t row = 0; row < a.rows; row += kCachedRows) {
    many_rows<Panel>(a, row, row + kCachedRows < a.rows ? row + kCachedRows : a.rows);
  }
}

}  // namespace

void gemm(Storage storage, const GemmArgs& args) {
  if (storage == Storage::f32) {
    gemm_of<F32Panel>(args);
  } else {
    gemm_of<Bf16Panel>(args);
  }
}

void unpack_row(Storage storage, const void* panels, int64_t inputs, int64_t row, float* out) {
  const unsigned char* panel =
      static_cast<const unsigned char*>(panels) + row / kPanelRows * panel_bytes(storage, inputs);
  const int64_t lane = row % kPanelRows * 4;
  for (int64_t k = 0; k < inputs; ++k) {
    if (storage == Storage::f32) {
      __builtin_memcpy(out + k, panel + k * 64 + lane, sizeof(float));
    } else {
      uint16_t bits;
      __builtin_memcpy(&bits, panel + k / 2 * 64 + lane + k % 2 * 2, sizeof bits);
      out[k] = float_from_bf16(bits);
    }
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
