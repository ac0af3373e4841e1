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
constexpr int kParts = 3;  // from the highest bits to the lowest
constexpr int64_t kPartBytes = kTileInputs * 2;  // of one row: a line
constexpr int64_t kStepBytes = kParts * kPartBytes;
constexpr int64_t kBlockInputs = 1024;
constexpr int64_t kMostRows = 128;  // whose block of inputs stays in the second-level cache

// A row: for each 32 inputs the lines of their parts. An odd number of lines, or all rows of a tile would fall into the
// same few sets of the first-level cache.
constexpr int64_t row_bytes(int64_t inputs) { return ((inputs + kTileInputs - 1) / kTileInputs * kParts | 1) * kPartBytes; }

// Registers: sums 0 and 1, activations 2, weights 3 and 4. Products of one sum do not wait for one another, and few
// registers are safer than many: a product takes 5.7 ns, however many are written; but at times, as if another thread of
// the core had a share of them, 10 with three, 11 with five and 23 with eight.
TileConfig config_for(int64_t activation_rows) {
  TileConfig config;
  for (int t = 0; t < 5; ++t) config.set(t, t < 3 ? activation_rows : kTileRows, 64);
  return config;
}

EXPERT_INLINE void store_upper_halves(unsigned char* to, __m512i bits) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

// Cut, not rounded: the largest floats would round to infinity. Nothing is left over of what is not finite.
EXPERT_INLINE void cut_row(const float* x, int64_t inputs, unsigned char* parts) {
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
    unsigned char* to = parts + k / kTileInputs * kStepBytes + k % kTileInputs * 2;
    store_upper_halves(to, high);
    store_upper_halves(to + kPartBytes, middle);
    store_upper_halves(to + 2 * kPartBytes, _mm512_castps_si512(rest));
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

// The rows [first, last) of a call in parts, those of one input block at `parts`.
struct SplitRows {
  int64_t first;
  int64_t last;
  const unsigned char* parts;
  int64_t stride;
};

// Which rows a tile holds, from `first` on, and which of them are wanted: the last tile reaches back instead of out.
struct TileOfRows {
  int64_t first;
  int64_t skipped;
  int64_t wanted;
};

// One input block of one tile of rows and one or two panels.
class Block {
 public:
  Block(const GemmArgs& args, int64_t k, const SplitRows& rows) : a_(args), k_(k), rows_(rows) {
    inputs_ = a_.inputs - k < kBlockInputs ? a_.inputs - k : kBlockInputs;
  }

  // All rows times these panels, which are read from memory once.
  template <int Panels>
  __attribute__((always_inline)) void multiply(int64_t panel) const {
    for (int64_t row = rows_.first; row < rows_.last; row += kTileRows) multiply<Panels>(tile_at(row), panel);
  }

 private:
  TileOfRows tile_at(int64_t row) const {
    const int64_t wanted = rows_.last - row < kTileRows ? rows_.last - row : kTileRows;
    const int64_t back = rows_.last - kTileRows;
    const int64_t first = row <= back ? row : back < rows_.first ? rows_.first : back;
    return {first, row - first, wanted};
  }

  template <int Panels>
  __attribute__((always_inline)) void multiply(const TileOfRows& tile, int64_t panel) const {
    const unsigned char* x = rows_.parts + (tile.first - rows_.first) * rows_.stride;
    const unsigned char* w[Panels];
    for (int p = 0; p < Panels; ++p) w[p] = lines_of(panel + p);
    _tile_zero(0);
    if constexpr (Panels > 1) _tile_zero(1);
    const int64_t whole = inputs_ / kTileInputs;
    const bool few = rows_.last - rows_.first <= kTileRows;
    for (int64_t i = 0; i < whole; ++i) {
      const unsigned char* lines[Panels];
      for (int p = 0; p < Panels; ++p) lines[p] = w[p] + i * kTileBytes;
      if (few) {
        prefetch(lines);
      } else {
        prefetch_next<Panels>(tile.first + tile.skipped, lines);
      }
      products<Panels>(x + i * kStepBytes, lines);
    }
    if (inputs_ % kTileInputs != 0) last_products<Panels>(x + whole * kStepBytes, w, whole);
    put<Panels>(tile, panel);
  }

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

  // With many rows this tile's share of what the next panels have here, while these are multiplied.
  template <int Panels>
  __attribute__((always_inline)) void prefetch_next(int64_t row, const unsigned char* const (&lines)[Panels]) const {
    const int64_t rows = rows_.last - rows_.first;
    const int64_t begin = (row - rows_.first) * kTileBytes / 64 / rows * 64;
    const int64_t end = (row - rows_.first + kTileRows) * kTileBytes / 64 / rows * 64;
    const int64_t ahead = Panels * panel_bytes(Storage::bf16, a_.inputs);
    for (int p = 0; p < Panels; ++p) {
      for (int64_t line = begin; line < end; line += 64) __builtin_prefetch(lines[p] + ahead + line, 0, 2);
    }
  }

  // All parts of 32 inputs.
  template <int Panels>
  __attribute__((always_inline)) void products(const unsigned char* x, const unsigned char* const (&lines)[Panels]) const {
    const auto stride = static_cast<size_t>(rows_.stride);
    _tile_loadd(3, lines[0], 64);
    if constexpr (Panels > 1) _tile_loadd(4, lines[1], 64);
    for (int part = 0; part < kParts; ++part) {
      _tile_loadd(2, x + part * kPartBytes, stride);
      _tile_dpbf16ps(0, 2, 3);
      if constexpr (Panels > 1) _tile_dpbf16ps(1, 2, 4);
    }
  }

  // The lines of a panel end in the middle of a tile: what is behind them belongs to others.
  template <int Panels>
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
    products<Panels>(x, lines);
  }

  template <int Panels>
  __attribute__((always_inline)) void put(const TileOfRows& tile, int64_t panel) const {
    alignas(64) float sums[Panels][kTileRows * kPanelRows];
    _tile_stored(0, sums[0], 64);
    if constexpr (Panels > 1) _tile_stored(1, sums[1], 64);
    for (int p = 0; p < Panels; ++p) {
      put_sums(a_, a_.accumulate || k_ > 0, tile.first + tile.skipped, tile.wanted, panel + p,
               sums[p] + tile.skipped * kPanelRows);
    }
  }

  const GemmArgs& a_;
  int64_t k_;
  int64_t inputs_;
  SplitRows rows_;
};

void multiply_block(const GemmArgs& a, int64_t k, const SplitRows& rows) {
  tile_memory();
  const Block block(a, k, rows);
  int64_t panel = a.panel_begin;
  for (; panel + 2 <= a.panel_end; panel += 2) block.multiply<2>(panel);
  if (panel < a.panel_end) block.multiply<1>(panel);
}

void rows_of(const GemmArgs& a, int64_t first, int64_t last, unsigned char* own) {
  for (int64_t k = 0; k < a.inputs; k += kBlockInputs) {
    if (a.prepared != nullptr) {
      const int64_t stride = row_bytes(a.inputs);
      const unsigned char* parts = a.prepared + first * stride + k / kTileInputs * kStepBytes;
      multiply_block(a, k, {first, last, parts, stride});
      continue;
    }
    const int64_t inputs = a.inputs - k < kBlockInputs ? a.inputs - k : kBlockInputs;
    const int64_t stride = row_bytes(kBlockInputs);
    for (int64_t row = first; row < last; ++row) {
      cut_row(a.x + row * a.x_stride + k, inputs, own + (row - first) * stride);
    }
    multiply_block(a, k, {first, last, own, stride});
  }
}

}  // namespace

int64_t split_row_bytes(int64_t inputs) { return row_bytes(inputs); }

void split_row(const float* x, int64_t inputs, unsigned char* out) { cut_row(x, inputs, out); }

// The tiles are configured for each call: the host application may use the unit too. Rows are taken in pieces of about
// equal size, so that each fills a tile where there are enough; a smaller one of our own may read what is left behind it.
void gemm_tiles(const GemmArgs& args) {
  if (args.rows == 0) return;
  constexpr int64_t kOwnRowBytes = row_bytes(kBlockInputs);
  alignas(64) unsigned char few[kTileRows * kOwnRowBytes];
  auto* own = args.scratch != nullptr ? reinterpret_cast<unsigned char*>(args.scratch) : few;
  const int64_t room = args.scratch != nullptr ? kGemmScratch * 4 / kOwnRowBytes : kTileRows;
  const int64_t at_once = args.prepared != nullptr ? kMostRows : room;
  const int64_t pieces = (args.rows + at_once - 1) / at_once;
  const int64_t most = (args.rows + pieces - 1) / pieces;
  configure_tiles(config_for(most < kTileRows ? most : kTileRows));
  for (int64_t piece = 0; piece < pieces; ++piece) {
    rows_of(args, args.rows * piece / pieces, args.rows * (piece + 1) / pieces, own);
  }
  _tile_release();
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
