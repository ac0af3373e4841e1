// y = x W^T over BF16 panels on the tile unit (AMX). A panel's lines are its weight tile as they lie: 16 lines of 16
// outputs x 2 inputs; activations are rows of pair_row(). One row goes the same way as many, so a row's sums never depend
// on the others.
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_unit.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileInputs = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kLineBytes = kTileInputs * 2;  // of one row
constexpr int64_t kBlockInputs = 512;  // whose activations of one tile of rows stay in the first-level cache
constexpr int64_t kMostRows = 128;     // whose block of inputs stays in the second
constexpr int64_t kMostPanels = kGemmScratch / (kMostRows * kPanelRows);  // whose sums find room between blocks

// Registers: sums 0 and 1, activations 2, weights 3 and 4. Products of one sum do not wait for one another, and few
// registers are safer than many: a product takes 5.7 ns, however many are written; but at times, as if another thread of
// the core had a share of them, 10 with three, 11 with five and 23 with eight.
TileConfig config_for(int64_t activation_rows) {
  TileConfig config;
  for (int t = 0; t < 5; ++t) config.set(t, t < 3 ? activation_rows : kTileRows, 64);
  return config;
}

// y[row + r, panel's outputs] for `rows` rows: scale * sums, added or not.
void put_sums(const GemmArgs& a, bool add, int64_t row, int64_t rows, int64_t panel, const float* sums) {
  const int64_t first = panel * kPanelRows;
  const int64_t left = a.outputs - first;
  const auto mask = static_cast<__mmask16>(left >= kPanelRows ? 0xFFFFU : (1U << left) - 1U);
  const __m512 scale = _mm512_set1_ps(a.scale);
  for (int64_t r = 0; r < rows; ++r) {
    float* y = a.y + (row + r) * a.y_stride + first;
    __m512 value = _mm512_mul_ps(_mm512_loadu_ps(sums + r * kPanelRows), scale);
    if (add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), value);
    _mm512_mask_storeu_ps(y, mask, value);
  }
}

// Which rows a tile holds, from `first` on, and which of them are wanted: the last tile reaches back instead of out.
struct TileOfRows {
  int64_t first;
  int64_t skipped;
  int64_t wanted;
};

TileOfRows tile_at(int64_t row, int64_t first, int64_t last) {
  const int64_t wanted = last - row < kTileRows ? last - row : kTileRows;
  const int64_t back = last - kTileRows;
  const int64_t begin = row <= back ? row : back < first ? first : back;
  return {begin, row - begin, wanted};
}

// A tile of rows.
struct PairRows {
  const unsigned char* first;
  int64_t stride;

  const unsigned char* at(int64_t k) const { return first + k / kTileInputs * kLineBytes; }
};

// What memory is asked for while a block is multiplied.
enum class Ahead { these_panels, next_block };

// One tile of rows times one or two panels. The sums stay in registers 0 and 1, whatever blocks the inputs come in: so a
// row gets the same bits either way.
template <int Panels>
class Product {
 public:
  Product(const GemmArgs& args, int64_t panel) : a_(args), panel_(panel) {}

  __attribute__((always_inline)) void begin() const {
    _tile_zero(0);
    if constexpr (Panels > 1) _tile_zero(1);
  }
  // Sums of the panels [.., Panels] as tiles of 1 KB.
  __attribute__((always_inline)) void load(const float* sums) const {
    _tile_loadd(0, sums, 64);
    if constexpr (Panels > 1) _tile_loadd(1, sums + kTileFloats, 64);
  }
  __attribute__((always_inline)) void store(float* sums) const {
    _tile_stored(0, sums, 64);
    if constexpr (Panels > 1) _tile_stored(1, sums + kTileFloats, 64);
  }

  // Inputs [k, end): k is a multiple of 32, and so is end unless it is the last. The lines [first, last) of each
  // weight tile are asked for in the next block.
  template <Ahead kAhead>
  __attribute__((always_inline)) void add(const PairRows& x, int64_t k, int64_t end, int64_t first_line,
                                          int64_t last_line) const {
    const int64_t whole = end / kTileInputs * kTileInputs;
    for (; k < whole; k += kTileInputs) {
      const unsigned char* lines[Panels];
      for (int p = 0; p < Panels; ++p) lines[p] = lines_of(p, k);
      if constexpr (kAhead == Ahead::these_panels) {
        // With few rows memory is what is waited for, and tile loads do not run ahead far enough.
        for (int p = 0; p < Panels; ++p) prefetch<3>(lines[p] + 3 * kTileBytes, 0, kTileBytes / 64);
      } else {
        for (int p = 0; p < Panels; ++p) prefetch<2>(lines[p] + kBlockInputs * kPanelRows * 2, first_line, last_line);
      }
      products(x.at(k), x.stride, lines);
    }
    if (end != whole) last_products(x.at(whole), x.stride, whole, end - whole);
  }

  __attribute__((always_inline)) void put(const TileOfRows& tile) const {
    alignas(64) float sums[Panels * kTileFloats];
    store(sums);
    for (int p = 0; p < Panels; ++p) {
      put_sums(a_, a_.accumulate, tile.first + tile.skipped, tile.wanted, panel_ + p,
               sums + p * kTileFloats + tile.skipped * kPanelRows);
    }
  }

 private:
  static constexpr int64_t kTileFloats = kTileRows * kPanelRows;

  const unsigned char* lines_of(int p, int64_t k) const {
    return static_cast<const unsigned char*>(a_.panels) + (panel_ + p) * panel_bytes(Storage::bf16, a_.inputs) +
           k * kPanelRows * 2;
  }

  template <int kLevel>
  EXPERT_INLINE void prefetch(const unsigned char* lines, int64_t first, int64_t last) {
    for (int64_t line = first; line < last; ++line) __builtin_prefetch(lines + line * 64, 0, kLevel);
  }

  // 32 inputs.
  __attribute__((always_inline)) void products(const unsigned char* x, int64_t stride,
                                               const unsigned char* const (&lines)[Panels]) const {
    _tile_loadd(3, lines[0], 64);
    if constexpr (Panels > 1) _tile_loadd(4, lines[1], 64);
    _tile_loadd(2, x, static_cast<size_t>(stride));
    _tile_dpbf16ps(0, 2, 3);
    if constexpr (Panels > 1) _tile_dpbf16ps(1, 2, 4);
  }

  // The lines of a panel end in the middle of a tile: what is behind them belongs to others.
  __attribute__((noinline)) void last_products(const unsigned char* x, int64_t stride, int64_t k, int64_t inputs) const {
    alignas(64) unsigned char rest[Panels][kTileBytes] = {};
    const unsigned char* lines[Panels];
    const auto bytes = static_cast<size_t>((inputs + 1) / 2 * 64);
    for (int p = 0; p < Panels; ++p) {
      __builtin_memcpy(rest[p], lines_of(p, k), bytes);
      lines[p] = rest[p];
    }
    tile_memory();
    products(x, stride, lines);
  }

  const GemmArgs& a_;
  int64_t panel_;
};

// Calls `use` with 2 or 1 as a constant, and the panel they begin with.
template <typename Use>
EXPERT_INLINE void over_panels(int64_t begin, int64_t end, Use&& use) {
  for (; begin + 2 <= end; begin += 2) use.template operator()<2>(begin);
  if (begin < end) use.template operator()<1>(begin);
}

// Up to 16 rows: memory is read in the order in which it lies.
void few_rows(const GemmArgs& a, int64_t row, int64_t rows) {
  const int64_t stride = pair_row_bytes(a.inputs);
  const TileOfRows tile = tile_at(row, 0, row + rows);
  const PairRows x = {a.prepared + tile.first * stride, stride};
  tile_memory();
  over_panels(a.panel_begin, a.panel_end, [&]<int Panels>(int64_t panel) __attribute__((always_inline)) {
    const Product<Panels> product(a, panel);
    product.begin();
    product.template add<Ahead::these_panels>(x, 0, a.inputs, 0, 0);
    product.put(tile);
  });
}

// Rows [first, last) and panels [begin, end) block by block: a tile of rows meets all panels, then the next one does.
// Sums wait in `sums`, a KB for each tile of rows and panel.
void many_rows(const GemmArgs& a, int64_t first, int64_t last, int64_t begin, int64_t end, float* sums) {
  const int64_t stride = pair_row_bytes(a.inputs);
  const int64_t lines = kTileBytes / 64;
  tile_memory();
  for (int64_t k = 0; k < a.inputs; k += kBlockInputs) {
    const int64_t k_end = k + kBlockInputs < a.inputs ? k + kBlockInputs : a.inputs;
    for (int64_t row = first; row < last; row += kTileRows) {
      const TileOfRows tile = tile_at(row, first, last);
      const PairRows x = {a.prepared + tile.first * stride, stride};
      const int64_t first_line = (row - first) * lines / (last - first);
      const int64_t last_line = row + kTileRows < last ? (row - first + kTileRows) * lines / (last - first) : lines;
      over_panels(begin, end, [&]<int Panels>(int64_t panel) __attribute__((always_inline)) {
        const Product<Panels> product(a, panel);
        float* here = sums + ((row - first) / kTileRows * (end - begin) + panel - begin) * kTileRows * kPanelRows;
        if (k == 0) {
          product.begin();
        } else {
          product.load(here);
        }
        if (k == 0 && row == first) {
          product.template add<Ahead::these_panels>(x, k, k_end, 0, 0);
        } else {
          product.template add<Ahead::next_block>(x, k, k_end, first_line, last_line);
        }
        if (k_end == a.inputs) return product.put(tile);
        product.store(here);
      });
    }
  }
}

}  // namespace

// The tiles are configured for each call: the host application may use the unit too.
void gemm_tiles(const GemmArgs& args) {
  if (args.rows == 0) return;
  configure_tiles(config_for(args.rows < kTileRows ? args.rows : kTileRows));
  if (args.rows <= kTileRows || args.scratch == nullptr) {
    for (int64_t row = 0; row < args.rows; row += kTileRows) {
      few_rows(args, row, row + kTileRows < args.rows ? kTileRows : args.rows - row);
    }
  } else {
    // Pieces of about equal size, so that each has a whole tile.
    const int64_t pieces = (args.rows + kMostRows - 1) / kMostRows;
    for (int64_t i = 0; i < pieces; ++i) {
      for (int64_t panel = args.panel_begin; panel < args.panel_end; panel += kMostPanels) {
        const int64_t end = panel + kMostPanels < args.panel_end ? panel + kMostPanels : args.panel_end;
        many_rows(args, args.rows * i / pieces, args.rows * (i + 1) / pieces, panel, end, args.scratch);
      }
    }
  }
  _tile_release();
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
