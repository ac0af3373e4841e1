// y = x W^T over BF16 panels on the tile unit (AMX). A panel's lines are its weight tile as they lie: 16 lines of 16
// outputs x 2 inputs. Activations stay F32: each is cut in three BF16 numbers of 8 bits, which add up to it exactly, and
// every part is multiplied. One row goes the same way as many, so a row's sums never depend on the others.
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_unit.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileInputs = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kPartBytes = kInputBlock * 2;  // of one row and block
constexpr int kParts = 3;  // from the highest bits to the lowest
constexpr int64_t kRowBytes = kParts * kPartBytes;
constexpr int64_t kRowsAtOnce = kGemmScratch * 4 / kRowBytes / kTileRows * kTileRows;

// Registers: four sums, activations 4 and 5, weights 6 and 7. Four sums are what hides the unit's latency: up to 16 rows
// go four panels at a time, more rows in two tiles and two panels, which loads least.
TileConfig config_for(int64_t activation_rows) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) config.set(t, t < 6 ? activation_rows : kTileRows, 64);
  return config;
}

EXPERT_INLINE void store_upper_halves(unsigned char* to, __m512i bits) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

// Cut, not rounded: the largest floats would round to infinity. Nothing is left over of what is not finite.
EXPERT_INLINE void split_row(const float* x, int64_t inputs, unsigned char* parts) {
  const int64_t padded = (inputs + kTileInputs - 1) / kTileInputs * kTileInputs;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
  const __m512i exponent = _mm512_set1_epi32(0x7F800000);
  for (int64_t k = 0; k < padded; k += 16) {
    const int64_t left = inputs - k;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xFFFFU : left <= 0 ? 0U : (1U << left) - 1U);
    const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, x + k));
    const __mmask16 finite = _mm512_cmpneq_epi32_mask(_mm512_and_si512(bits, exponent), exponent);
    // A NaN may have all its bits in the lower half.
    const auto nan =
        static_cast<__mmask16>(~finite & _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x7FFFFF)) & 0xFFFFU);
    __m512i high = _mm512_and_si512(bits, upper);
    __m512 rest = _mm512_maskz_sub_ps(finite, _mm512_castsi512_ps(bits), _mm512_castsi512_ps(high));
    high = _mm512_mask_or_epi32(high, nan, high, _mm512_set1_epi32(0x400000));
    const __m512i middle = _mm512_and_si512(_mm512_castps_si512(rest), upper);
    rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(middle));
    store_upper_halves(parts + k * 2, high);
    store_upper_halves(parts + kPartBytes + k * 2, middle);
    store_upper_halves(parts + 2 * kPartBytes + k * 2, _mm512_castps_si512(rest));
  }
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

// One input block of a few row tiles and panels.
class Block {
 public:
  Block(const GemmArgs& args, int64_t k, const unsigned char* parts) : a_(args), k_(k), parts_(parts) {
    inputs_ = a_.inputs - k < kInputBlock ? a_.inputs - k : kInputBlock;
  }

  // `first_row` is the row of the first parts.
  template <int RowTiles, int Panels>
  __attribute__((always_inline)) void multiply(int64_t first_row, int64_t row, int64_t rows, int64_t panel) const {
    const unsigned char* x = parts_ + (row - first_row) * kRowBytes;
    const unsigned char* w[Panels];
    for (int p = 0; p < Panels; ++p) w[p] = lines_of(panel + p);
    _tile_zero(0);
    if constexpr (RowTiles * Panels > 1) _tile_zero(1);
    if constexpr (RowTiles * Panels > 2) _tile_zero(2);
    if constexpr (RowTiles * Panels > 3) _tile_zero(3);
    const int64_t whole = inputs_ / kTileInputs;
    for (int64_t i = 0; i < whole; ++i) {
      const unsigned char* lines[Panels];
      for (int p = 0; p < Panels; ++p) lines[p] = w[p] + i * kTileBytes;
      if constexpr (RowTiles == 1) prefetch(lines);
      products<RowTiles, Panels>(x + i * 64, lines);
    }
    if (inputs_ % kTileInputs != 0) last_products<RowTiles, Panels>(x + whole * 64, w, whole);
    put<RowTiles, Panels>(row, rows, panel);
  }

 private:
  const unsigned char* lines_of(int64_t panel) const {
    return static_cast<const unsigned char*>(a_.panels) + panel * panel_bytes(Storage::bf16, a_.inputs) +
           panel_bytes(Storage::bf16, k_);
  }

  // A tile of each panel that is three ahead: with few rows memory is what is waited for, and tile loads do not run ahead
  // far enough.
  template <int Panels>
  EXPERT_INLINE void prefetch(const unsigned char* const (&lines)[Panels]) {
    for (int p = 0; p < Panels; ++p) {
      for (int64_t line = 0; line < kTileBytes; line += 64) __builtin_prefetch(lines[p] + 3 * kTileBytes + line);
    }
  }

  // All parts of 32 inputs. Two tiles of rows: sums 0 to Panels - 1 are the upper one's.
  template <int RowTiles, int Panels>
  EXPERT_INLINE void products(const unsigned char* x, const unsigned char* const (&lines)[Panels]) {
    _tile_loadd(6, lines[0], 64);
    if constexpr (Panels > 1) _tile_loadd(7, lines[1], 64);
    for (int part = 0; part < kParts; ++part) {
      _tile_loadd(4, x + part * kPartBytes, kRowBytes);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (Panels > 1) _tile_dpbf16ps(1, 4, 7);
      if constexpr (RowTiles > 1) {
        _tile_loadd(5, x + kTileRows * kRowBytes + part * kPartBytes, kRowBytes);
        if constexpr (Panels > 1) {
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        } else {
          _tile_dpbf16ps(1, 5, 6);
        }
      }
    }
    if constexpr (RowTiles == 1 && Panels > 2) {
      _tile_loadd(6, lines[2], 64);
      _tile_loadd(7, lines[3], 64);
      for (int part = 0; part < kParts; ++part) {
        _tile_loadd(4, x + part * kPartBytes, kRowBytes);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 7);
      }
    }
  }

  // The lines of a panel end in the middle of a tile: what is behind them belongs to others.
  template <int RowTiles, int Panels>
  __attribute__((noinline)) void last_products(const unsigned char* x, const unsigned char* const (&w)[Panels],
                                               int64_t whole) const {
    alignas(64) unsigned char rest[Panels][kTileBytes] = {};
    const unsigned char* lines[Panels];
    const auto bytes = static_cast<size_t>((inputs_ % kTileInputs + 1) / 2 * 64);
    for (int p = 0; p < Panels; ++p) {
      __builtin_memcpy(rest[p], w[p] + whole * kTileBytes, bytes);
      lines[p] = rest[p];
    }
    tile_memory();
    products<RowTiles, Panels>(x, lines);
  }

  template <int RowTiles, int Panels>
  __attribute__((always_inline)) void put(int64_t row, int64_t rows, int64_t panel) const {
    alignas(64) float sums[kTileRows * kPanelRows];
    const bool add = a_.accumulate || k_ > 0;
    const auto put_tile = [&](int tile) {
      const int64_t below = tile / Panels * kTileRows;
      const int64_t count = rows - below < kTileRows ? rows - below : kTileRows;
      put_sums(a_, add, row + below, count, panel + tile % Panels, sums);
    };
    _tile_stored(0, sums, 64);
    put_tile(0);
    if constexpr (RowTiles * Panels > 1) {
      _tile_stored(1, sums, 64);
      put_tile(1);
    }
    if constexpr (RowTiles * Panels > 2) {
      _tile_stored(2, sums, 64);
      put_tile(2);
      _tile_stored(3, sums, 64);
      put_tile(3);
    }
  }

  const GemmArgs& a_;
  int64_t k_;
  int64_t inputs_;
  const unsigned char* parts_;
};

// Rows [first, last) times these panels, which are read from memory once.
template <int Panels>
EXPERT_INLINE void many_rows(const Block& block, int64_t first, int64_t last, int64_t panel) {
  int64_t row = first;
  for (; row + kTileRows < last; row += 2 * kTileRows) {
    block.multiply<2, Panels>(first, row, last - row < 2 * kTileRows ? last - row : 2 * kTileRows, panel);
  }
  if (row < last) block.multiply<1, Panels>(first, row, last - row, panel);
}

void rows_of(const GemmArgs& a, int64_t first, int64_t last, unsigned char* parts) {
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    const Block block(a, k, parts);
    const int64_t inputs = a.inputs - k < kInputBlock ? a.inputs - k : kInputBlock;
    for (int64_t row = first; row < last; ++row) {
      split_row(a.x + row * a.x_stride + k, inputs, parts + (row - first) * kRowBytes);
    }
    tile_memory();
    const bool few = last - first <= kTileRows;
    int64_t panel = a.panel_begin;
    for (; few && panel + 4 <= a.panel_end; panel += 4) block.multiply<1, 4>(first, first, last - first, panel);
    for (; panel + 2 <= a.panel_end; panel += 2) many_rows<2>(block, first, last, panel);
    for (; panel < a.panel_end; ++panel) many_rows<1>(block, first, last, panel);
  }
}

}  // namespace

// The tiles are configured for each call: the host application may use the unit too. A tile of activations may hold rows
// of an earlier call behind its last one; their sums are not stored.
void gemm_tiles(const GemmArgs& args) {
  if (args.rows == 0) return;
  alignas(64) unsigned char own[kTileRows * kRowBytes];
  auto* parts = args.scratch != nullptr ? reinterpret_cast<unsigned char*>(args.scratch) : own;
  const int64_t at_once = args.scratch != nullptr ? kRowsAtOnce : kTileRows;
  const TileConfig config = config_for(args.rows < kTileRows ? args.rows : kTileRows);
  configure_tiles(config);
  for (int64_t row = 0; row < args.rows; row += at_once) {
    rows_of(args, row, row + at_once < args.rows ? row + at_once : args.rows, parts);
  }
  _tile_release();
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
