// y = x W^T over quantised panels. Per group of 32 inputs the codes are multiplied as integers, exactly; then
//   y += (sum - zero * sum of the row's codes) * (scale of the weights * scale of the row)
// in FP32, groups in ascending order, whatever the number of rows: so a row gets the same bits alone and in a crowd.
// Few rows read the panels as they are. More rows unpack a block of a panel once, and it stays in the first-level cache
// for all tiles of rows. Where the processor has a tile unit, it makes the products of sixteen rows at a time: integers,
// so the sums are the same.
#include <type_traits>

#include "kernels/cpu/quantised_row.h"
#include "kernels/cpu/tile.h"
#if defined(EXPERT_TILE_UNIT)
#include "kernels/cpu/tile_unit.h"
#endif

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kFewRows = kRegisterRows == 12 ? 12 : 3;
// What is unpacked at a time and stays in the first-level cache: groups of how many panels. The tile unit reads the rows'
// codes from the second level, so they serve two panels each time.
#if defined(EXPERT_TILE_UNIT)
constexpr int64_t kBlockGroups = 8;
constexpr int64_t kBlockPanels = 2;
#else
constexpr int64_t kBlockGroups = 16;
constexpr int64_t kBlockPanels = 1;
#endif

// Panels that one row reads in turns, and how far ahead it asks; 0: not at all. It needs a line for so short a time that asking
// gets into the way of hardware that follows a panel by itself (Zen 4: INT8 44 GB/s instead of 32). Zen 3 follows four better than
// one and has to be asked, behind the end of a panel for the one whose turn is next (INT8: 0.89 of the time of two panels without
// that, and four without it take as long as those; INT4: 0.91 of one). Other processors were not measured; the set of Zen 4 also
// serves Intel's without a tile unit.
#if defined(__AVX512F__) && !defined(EXPERT_TILE_UNIT)
template <class Codes>
constexpr int kPanelsOfOneRow = 1;
template <class Codes>
constexpr int64_t kBytesAheadOfOneRow = 0;
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__)
template <class Codes>
constexpr int kPanelsOfOneRow = 4;
template <class Codes>
constexpr int64_t kBytesAheadOfOneRow = Codes::kStorage == Storage::int8 ? 512 : 768;
#else
template <class Codes>
constexpr int kPanelsOfOneRow = 1;
template <class Codes>
constexpr int64_t kBytesAheadOfOneRow = kPrefetchBytes;
#endif

template <class Codes>
constexpr int kGroupSteps = Codes::kLines* Codes::kSteps;

// Steps of an unpacked group that a tile takes at a time. Of INT8 one: of more, GCC gathers the products before it adds them up,
// and runs out of registers. Four of INT4 take 0.96 to 0.99 of the time on Zen 3; elsewhere it was not measured.
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__)
template <class Codes>
constexpr int kTileSteps = Codes::kStorage == Storage::int4 ? 4 : 1;
#else
template <class Codes>
constexpr int kTileSteps = 1;
#endif

template <class Codes>
EXPERT_INLINE Ints first_sum(const RowGroup& x) {
  return Codes::kStorage == Storage::int8 ? reinterpret_cast<Ints>(splat_words(x.correction)) : Ints{};
}

// Scales of one vector of outputs, and zero points where they differ.
struct Scales {
  Floats scale;
  Floats zero;
};

// What makes scales of bytes, for one vector of outputs of a panel.
struct ScaleHead {
  Words base;
#if defined(__AVX2__) || defined(__ARM_NEON)
  Words shift;  // from a byte to the high half of a word
#else
  Words factor;  // SSE2 has no shifts by lane
#endif

  EXPERT_INLINE Words shifted(const ScaleHead& head, Words bytes) {
#if defined(__AVX2__) || defined(__ARM_NEON)
    return bytes << head.shift;
#else
    return bytes * head.factor;
#endif
  }
};

EXPERT_INLINE ScaleHead scale_head(const unsigned char* panel, int v) {
  const Words words = line_words(panel, v);
#if defined(__AVX2__) || defined(__ARM_NEON)
  return {words & 0xFFFF0000U, (words & 15U) + 16U};
#else
  Words factor;
  for (int i = 0; i < kLanes; ++i) factor[i] = 0x10000U << (words[i] & 15U);
  return {words & 0xFFFF0000U, factor};
#endif
}

template <class Codes>
EXPERT_INLINE Scales unpack_scales(const ScaleHead& head, const unsigned char* scales, int v) {
  const Words bytes = scale_bytes(scales + v * kLanes);
  if constexpr (Codes::kStorage == Storage::int8) {
    return {reinterpret_cast<Floats>(ScaleHead::shifted(head, bytes) + head.base), Floats{}};
  }
  Scales result = {reinterpret_cast<Floats>(ScaleHead::shifted(head, bytes & 0xF8U) + head.base), Floats{}};
#if defined(__AVX512F__)
  // Of the four bits that the instruction looks at three are the zero point's.
  float zeros[kLanes];
  for (int i = 0; i < kLanes; ++i) zeros[i] = kInt4FirstZero + kInt4ZeroStep * static_cast<float>(i % kInt4Zeros);
  result.zero = _mm512_maskz_permutexvar_ps(0xFFFF, reinterpret_cast<__m512i>(bytes), load(zeros));
#else
  result.zero = fma(to_floats(reinterpret_cast<Ints>(bytes & 7U)), splat(kInt4ZeroStep), splat(kInt4FirstZero));
#endif
  return result;
}

// Exact but for the last two operations: code sums are below 2^24, zero points halves.
template <class Codes>
EXPERT_INLINE Floats add_group(Floats y, Ints sum, const Scales& w, const RowGroup& x) {
  Floats product = to_floats(sum);
  if constexpr (Codes::kStorage == Storage::int4) product = fma(w.zero, splat(float_from_bits(x.correction)), product);
  return fma(product, w.scale * splat(x.scale), y);
}

template <class Codes>
const unsigned char* panel_of(const GemmArgs& a, int64_t panel) {
  return static_cast<const unsigned char*>(a.panels) + panel * panel_bytes(Codes::kStorage, a.inputs);
}

// Where the totals of a tile of rows stand between blocks of groups: [rows, 16].
template <int R>
struct Totals {
  Floats y[R][kPanelVectors];

  // Nothing before the first group, else what stands in `totals`.
  __attribute__((always_inline)) void begin(int64_t group, const float* totals) {
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kPanelVectors; ++v) {
        y[r][v] = group == 0 ? Floats{} : load(totals + r * kPanelRows + v * kLanes);
      }
    }
  }
  __attribute__((always_inline)) void store_to(float* totals) const {
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kPanelVectors; ++v) store(totals + r * kPanelRows + v * kLanes, y[r][v]);
    }
  }
};

// Tiles of rows over the groups [first_group, last_group) of one panel as it lies in memory.
template <class Codes>
struct PanelTiles {
  const GemmArgs& a;
  const unsigned char* panel;
  int64_t first_row;
  int64_t first_group;
  int64_t last_group;
  float* totals;  // [rows, 16], so far

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    typedef typename Codes::Dot Dot;
    const int64_t groups = group_count(a.inputs);
    const unsigned char* rows = codes_of(a, first_row + row);
    const int64_t stride = quantised_row_bytes(a.inputs);
    ScaleHead head[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) head[v] = scale_head(panel, v);
    Totals<R> total;
    total.begin(first_group, totals + row * kPanelRows);
    for (int64_t g = first_group; g < last_group; ++g) {
      const unsigned char* line = panel + codes_at(Codes::kStorage, g);
      const unsigned char* x = rows + g * kCodeBytes<typename Codes::Dot>;
      typename Dot::Sum sum[R][kPanelVectors];
      for (int r = 0; r < R; ++r) {
        const RowGroup x_group = row_group<typename Codes::Dot>(rows + r * stride, g, groups);
        for (int v = 0; v < kPanelVectors; ++v) sum[r][v] = first_sum<Codes>(x_group);
      }
#pragma GCC unroll 1  // unrolled, GCC gathers the products before it adds them up, and runs out of registers
      for (int l = 0; l < Codes::kLines; ++l) {
        __builtin_prefetch(line + l * 64 + kPrefetchBytes);
        for (int v = 0; v < kPanelVectors; ++v) {
          Words step[Codes::kSteps];
          Codes::unpack(line_words(line + l * 64, v), step);
          for (int s = 0; s < Codes::kSteps; ++s) {
            for (int r = 0; r < R; ++r) sum[r][v] = Dot::add(sum[r][v], step[s], word(x + r * stride, l * Codes::kSteps + s));
          }
        }
      }
      for (int v = 0; v < kPanelVectors; ++v) {
        const Scales w = unpack_scales<Codes>(head[v], panel + scales_at(Codes::kStorage, g), v);
        for (int r = 0; r < R; ++r) {
          const RowGroup x_group = row_group<typename Codes::Dot>(rows + r * stride, g, groups);
          total.y[r][v] = add_group<Codes>(total.y[r][v], Dot::total(sum[r][v]), w, x_group);
        }
      }
    }
    total.store_to(totals + row * kPanelRows);
  }
};

template <class Codes>
void put_panels(const GemmArgs& a, int64_t first_panel, int64_t panels, int64_t first_row, int64_t rows,
                const float* totals) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t p = 0; p < panels; ++p) {
      for (int v = 0; v < kPanelVectors; ++v) {
        put(a, first_row + r, (first_panel + p) * kPanelRows + v * kLanes,
            load(totals + (p * rows + r) * kPanelRows + v * kLanes));
      }
    }
  }
}

template <class Dot>
EXPERT_INLINE typename Dot::Sum add_of_one(typename Dot::Sum sum, Words w, Words x) {
  if constexpr (std::is_same_v<Dot, Pair>) {
    return Dot::add_of_one(sum, w, x);
  } else {
    return Dot::add(sum, w, x);
  }
}

// How one row reads panels: P of them in turns, group by group.
template <class Codes, int P>
class OneRow {
 public:
  explicit OneRow(const GemmArgs& a)
      : a_(a), groups_(group_count(a.inputs)), panel_bytes_(panel_bytes(Codes::kStorage, a.inputs)) {}

  __attribute__((always_inline)) void run(int64_t first_panel) const {
    const unsigned char* panel[P];
    ScaleHead head[P][kPanelVectors];
    Totals<1> total[P];
    for (int p = 0; p < P; ++p) {
      panel[p] = panel_of<Codes>(a_, first_panel + p);
      for (int v = 0; v < kPanelVectors; ++v) head[p][v] = scale_head(panel[p], v);
      total[p].begin(0, nullptr);
    }
    for (int64_t g = 0; g < groups_; ++g) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) add_group_of(panel[p], g, head[p], total[p].y[0]);
    }
    for (int p = 0; p < P; ++p) {
      for (int v = 0; v < kPanelVectors; ++v) put(a_, 0, (first_panel + p) * kPanelRows + v * kLanes, total[p].y[0][v]);
    }
  }

 private:
  typedef typename Codes::Dot Dot;

  // How far ahead a panel asks in group g: behind its end comes the one that has its turn then, not its neighbour.
  __attribute__((always_inline)) int64_t bytes_ahead(int64_t g) const {
    constexpr int64_t kAhead = kBytesAheadOfOneRow<Codes>;
    return codes_at(Codes::kStorage, g) + kAhead < panel_bytes_ ? kAhead : kAhead + (P - 1) * panel_bytes_;
  }

  // The scales first: lines are read in the order in which they lie.
  __attribute__((always_inline)) void add_group_of(const unsigned char* panel, int64_t g, const ScaleHead (&head)[kPanelVectors],
                                                   Floats (&total)[kPanelVectors]) const {
    const RowGroup x = row_group<Dot>(a_.prepared, g, groups_);
    const unsigned char* line = panel + codes_at(Codes::kStorage, g);
    const unsigned char* ahead = line + bytes_ahead(g);
    Scales scales[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) scales[v] = unpack_scales<Codes>(head[v], panel + scales_at(Codes::kStorage, g), v);
    typename Dot::Sum sum[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) sum[v] = first_sum<Codes>(x);
#pragma GCC unroll 8
    for (int l = 0; l < Codes::kLines; ++l) {
      if constexpr (kBytesAheadOfOneRow<Codes> > 0) __builtin_prefetch(ahead + l * 64);
      for (int v = 0; v < kPanelVectors; ++v) {
        Words step[Codes::kSteps];
        Codes::unpack(line_words(line + l * 64, v), step);
        for (int s = 0; s < Codes::kSteps; ++s) sum[v] = add_of_one<Dot>(sum[v], step[s], word(x.words, l * Codes::kSteps + s));
      }
    }
    for (int v = 0; v < kPanelVectors; ++v) total[v] = add_group<Codes>(total[v], Dot::total(sum[v]), scales[v], x);
  }

  const GemmArgs& a_;
  int64_t groups_;
  int64_t panel_bytes_;
};

template <class Codes>
void one_row(const GemmArgs& a) {
  int64_t panel = a.panel_begin;
  if constexpr (kPanelsOfOneRow<Codes> > 1) {
    const OneRow<Codes, kPanelsOfOneRow<Codes>> several(a);
    for (; panel + kPanelsOfOneRow<Codes> <= a.panel_end; panel += kPanelsOfOneRow<Codes>) several.run(panel);
  }
  for (; panel < a.panel_end; ++panel) OneRow<Codes, 1>(a).run(panel);
}

// Rows of one tile, a whole panel at a time.
template <class Codes>
struct FewRows {
  const GemmArgs& a;

  template <int R>
  void run(int64_t row) const {
    for (int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
      float totals[R * kPanelRows];
      PanelTiles<Codes>{a, panel_of<Codes>(a, panel), row, 0, group_count(a.inputs), totals}.template run<R>(0);
      put_panels<Codes>(a, panel, 1, row, R, totals);
    }
  }
};

// --- many rows ----------------------------------------------------------------------------------------------------

// A group as the tiles read it: steps of 16 words, then 16 scales and 16 zero points.
template <class Codes>
constexpr int64_t kUnpackedBytes = kGroupSteps<Codes> * 64 + 128;

template <class Codes>
void unpack_group(const unsigned char* panel, int64_t group, unsigned char* to) {
  const unsigned char* line = panel + codes_at(Codes::kStorage, group);
  for (int l = 0; l < Codes::kLines; ++l) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Words step[Codes::kSteps];
      Codes::unpack(line_words(line + l * 64, v), step);
      for (int s = 0; s < Codes::kSteps; ++s) {
        __builtin_memcpy(to + (l * Codes::kSteps + s) * 64 + v * kLanes * 4, &step[s], sizeof(Words));
      }
    }
  }
  float* scales = reinterpret_cast<float*>(to + kGroupSteps<Codes> * 64);
  for (int v = 0; v < kPanelVectors; ++v) {
    const Scales w = unpack_scales<Codes>(scale_head(panel, v), panel + scales_at(Codes::kStorage, group), v);
    store(scales + v * kLanes, w.scale);
    store(scales + kPanelRows + v * kLanes, w.zero);
  }
}

// Tiles of rows over the unpacked groups [first_group, last_group) of one panel; sums so far in `totals` [rows, 16].
template <class Codes>
struct UnpackedTiles {
  const GemmArgs& a;
  int64_t first_row;
  int64_t first_group;
  int64_t last_group;
  const unsigned char* unpacked;
  float* totals;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    typedef typename Codes::Dot Dot;
    const int64_t groups = group_count(a.inputs);
    const unsigned char* rows = codes_of(a, first_row + row);
    const int64_t stride = quantised_row_bytes(a.inputs);
    Totals<R> total;
    total.begin(first_group, totals + row * kPanelRows);
    for (int64_t g = first_group; g < last_group; ++g) {
      const unsigned char* steps = unpacked + (g - first_group) * kUnpackedBytes<Codes>;
      const unsigned char* x = rows + g * kCodeBytes<typename Codes::Dot>;
      typename Dot::Sum sum[R][kPanelVectors];
      for (int r = 0; r < R; ++r) {
        const RowGroup row_g = row_group<typename Codes::Dot>(rows + r * stride, g, groups);
        __builtin_prefetch(x + r * stride + 2 * kCodeBytes<typename Codes::Dot>);
        for (int v = 0; v < kPanelVectors; ++v) sum[r][v] = first_sum<Codes>(row_g);
      }
#pragma GCC unroll 1
      for (int first = 0; first < kGroupSteps<Codes>; first += kTileSteps<Codes>) {
#pragma GCC unroll 4
        for (int s = first; s < first + kTileSteps<Codes>; ++s) {
          Words w[kPanelVectors];
          for (int v = 0; v < kPanelVectors; ++v) w[v] = load_words(steps + s * 64 + v * kLanes * 4);
          for (int r = 0; r < R; ++r) {
            const Words value = word(x + r * stride, s);
            for (int v = 0; v < kPanelVectors; ++v) sum[r][v] = Dot::add(sum[r][v], w[v], value);
          }
        }
      }
      const float* scales = reinterpret_cast<const float*>(steps + kGroupSteps<Codes> * 64);
      for (int r = 0; r < R; ++r) {
        const RowGroup x_group = row_group<typename Codes::Dot>(rows + r * stride, g, groups);
        for (int v = 0; v < kPanelVectors; ++v) {
          Scales w = {load(scales + v * kLanes), Floats{}};
          if constexpr (Codes::kStorage == Storage::int4) w.zero = load(scales + kPanelRows + v * kLanes);
          total.y[r][v] = add_group<Codes>(total.y[r][v], Dot::total(sum[r][v]), w, x_group);
        }
      }
    }
    total.store_to(totals + row * kPanelRows);
  }
};

#if defined(EXPERT_TILE_UNIT)

constexpr int64_t kUnitRows = 16;

// The unit's weights of 8 bits are signed, so that no zero point is left over.
struct SignedCodes : Int8Codes {
  EXPERT_INLINE void unpack(Words line, Words (&step)[kSteps]) { step[0] = line ^ 0x80808080U; }
};
template <class Codes>
using UnitCodes = std::conditional_t<Codes::kStorage == Storage::int8, SignedCodes, Codes>;

// Sixteen rows times the unpacked groups [first_group, last_group) of one panel on the tile unit: a group's steps, of 64
// bytes each, are its weight tile. First all products, then all sums are folded into the totals: beside tiles full-width
// vectors have one port instead of two (three operations a row and group: 36 of 2.1 GHz's cycles, alone 18).
template <class Codes>
class UnitTiles {
 public:
  UnitTiles(const GemmArgs& a, int64_t first_row, int64_t first_group, int64_t last_group,
            const unsigned char* unpacked, float* totals)
      : rows_(codes_of(a, first_row)),
        stride_(quantised_row_bytes(a.inputs)),
        groups_(group_count(a.inputs)),
        first_group_(first_group),
        last_group_(last_group),
        unpacked_(unpacked),
        totals_(totals) {}

  __attribute__((always_inline)) void run(int64_t row) const {
    const unsigned char* rows = rows_ + row * stride_;
    Totals<kUnitRows> total;
    total.begin(first_group_, totals_ + row * kPanelRows);
    Products products[kBlockGroups];
    for (int64_t g = first_group_; g < last_group_; ++g) multiply(rows, g, products[g - first_group_]);
    for (int64_t g = first_group_; g < last_group_; ++g) fold(total, rows, g, products[g - first_group_]);
    total.store_to(totals_ + row * kPanelRows);
  }

 private:
  struct alignas(64) Products {
    int32_t sum[kUnitRows][kPanelRows];
  };

  const unsigned char* steps_of(int64_t g) const { return unpacked_ + (g - first_group_) * kUnpackedBytes<Codes>; }

  // Registers: sums, activations, weights. No more of them: see gemm_amx.cpp.
  __attribute__((always_inline)) void multiply(const unsigned char* rows, int64_t g, Products& to) const {
    tile_memory();
    _tile_zero(0);
    _tile_loadd(1, rows + g * kCodeBytes<typename Codes::Dot>, static_cast<size_t>(stride_));
    _tile_loadd(2, steps_of(g), 64);
    _tile_dpbssd(0, 1, 2);
    _tile_stored(0, to.sum, 64);
    tile_memory();
  }

  __attribute__((always_inline)) void fold(Totals<kUnitRows>& total, const unsigned char* rows, int64_t g,
                                           const Products& from) const {
    const float* scales = reinterpret_cast<const float*>(steps_of(g) + kGroupSteps<Codes> * 64);
    const Scales w = {load(scales), load(scales + kPanelRows)};
    for (int r = 0; r < kUnitRows; ++r) {
      const RowGroup x = row_group<typename Codes::Dot>(rows + r * stride_, g, groups_);
      Ints sum;
      __builtin_memcpy(&sum, from.sum[r], sizeof sum);
      total.y[r][0] = add_group<Codes>(total.y[r][0], sum, w, x);
    }
  }

  const unsigned char* rows_;
  int64_t stride_;
  int64_t groups_;
  int64_t first_group_;
  int64_t last_group_;
  const unsigned char* unpacked_;
  float* totals_;
};

void configure_unit() {
  TileConfig config;
  config.set(0, kUnitRows, kPanelRows * 4);
  config.set(1, kUnitRows, kGroup);
  config.set(2, kGroup / 4, kPanelRows * 4);
  configure_tiles(config);
}

#endif

// Totals of so many panels are put at a time. On Zen 3 it helps to write a row of y in pieces of four lines instead of one
// (INT4 0.96 of the time, INT8 0.99); elsewhere it was not measured.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int64_t kPutPanels = 4;
#else
constexpr int64_t kPutPanels = kBlockPanels;
#endif

// Some panels' part in one block of groups: how they lie unpacked, and the totals of all rows.
template <class Codes>
struct Block {
  static constexpr int64_t kBytes = kBlockGroups * kUnpackedBytes<Codes>;  // of one panel
  const GemmArgs& a;
  int64_t first_panel;
  int64_t panels;
  int64_t first_row;
  int64_t rows;
  unsigned char* unpacked;
  float* totals;

  float* totals_of(int64_t p) const { return totals + p * rows * kPanelRows; }
  const unsigned char* panel(int64_t p) const { return panel_of<Codes>(a, first_panel + p); }

  template <class As>
  void unpack(int64_t begin, int64_t end) const {
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t g = begin; g < end; ++g) {
        unpack_group<As>(panel(p), g, unpacked + p * kBytes + (g - begin) * kUnpackedBytes<As>);
      }
    }
  }

  // Adds the groups [begin, end); the tile unit takes the rows that it can.
  void add(int64_t begin, int64_t end) const {
    int64_t row = 0;
#if defined(EXPERT_TILE_UNIT)
    if (rows >= kUnitRows) unpack<UnitCodes<Codes>>(begin, end);
    for (; row + kUnitRows <= rows; row += kUnitRows) {
      for (int64_t p = 0; p < panels; ++p) {
        UnitTiles<Codes>(a, first_row, begin, end, unpacked + p * kBytes, totals_of(p)).run(row);
      }
    }
#endif
    if (row == rows) return;
    if (!Codes::kAsStored && row == 0) unpack<Codes>(begin, end);
    for (int64_t p = 0; p < panels; ++p) {
      if constexpr (Codes::kAsStored) {
        over_tiles<kRegisterRows>(row, rows, PanelTiles<Codes>{a, panel(p), first_row, begin, end, totals_of(p)});
      } else {
        over_tiles<kRegisterRows>(row, rows,
                                  UnpackedTiles<Codes>{a, first_row, begin, end, unpacked + p * kBytes, totals_of(p)});
      }
    }
  }
};

template <class Codes>
void many_rows(const GemmArgs& a, int64_t first, int64_t rows) {
  constexpr int64_t kUnpacked = kBlockPanels * Block<Codes>::kBytes / 4;  // floats
  static_assert(kUnpacked + kPutPanels * kGemmRows * kPanelRows <= kGemmScratch);
  const auto least = [](int64_t x, int64_t y) { return x < y ? x : y; };
  const int64_t groups = group_count(a.inputs);
  float* totals = a.scratch + kUnpacked;
  for (int64_t p = a.panel_begin; p < a.panel_end; p += kPutPanels) {
    const int64_t panels = least(kPutPanels, a.panel_end - p);
    for (int64_t q = 0; q < panels; q += kBlockPanels) {
      const Block<Codes> block = {a,    p + q, least(kBlockPanels, panels - q),
                                  first, rows, reinterpret_cast<unsigned char*>(a.scratch),
                                  totals + q * rows * kPanelRows};
      for (int64_t g = 0; g < groups; g += kBlockGroups) block.add(g, least(g + kBlockGroups, groups));
    }
    put_panels<Codes>(a, p, panels, first, rows, totals);
  }
}

template <class Codes>
void gemm_of(const GemmArgs& a) {
  if (a.rows == 1) return one_row<Codes>(a);
  if (a.rows <= kFewRows || a.scratch == nullptr) return over_tiles<kFewRows>(0, a.rows, FewRows<Codes>{a});
#if defined(EXPERT_TILE_UNIT)
  configure_unit();  // for each call: the host application may use the unit too
#endif
  for (int64_t row = 0; row < a.rows; row += kGemmRows) {
    many_rows<Codes>(a, row, row + kGemmRows < a.rows ? kGemmRows : a.rows - row);
  }
#if defined(EXPERT_TILE_UNIT)
  _tile_release();
#endif
}

// --- activations --------------------------------------------------------------------------------------------------

// max |x| of a group by the bits, where infinity and NaN come out on top of every number.
EXPERT_INLINE float largest(const float* x) {
  Ints most = {};
  for (int64_t i = 0; i < kGroup; i += kLanes) {
    Words bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    const Ints magnitude = reinterpret_cast<Ints>(bits & 0x7FFFFFFFU);
    most = magnitude > most ? magnitude : most;
  }
  const auto larger = [](Ints a, Ints b) __attribute__((always_inline)) { return a > b ? a : b; };
  return float_from_bits(static_cast<uint32_t>(fold_lanes(most, larger)[0]));
}

// Half to even: adding and taking away 1.5 * 2^23 leaves the integer in the low bits.
EXPERT_INLINE Ints round_codes(Floats x) {
  const Floats magic = splat(0x1.8p23F);
  return reinterpret_cast<Ints>(x + magic) - reinterpret_cast<Ints>(magic);
}

// One vector of codes as the words of a product's steps; returns the bytes written.
template <class Dot>
EXPERT_INLINE int64_t put_codes(Ints codes, unsigned char* words) {
  if constexpr (Dot::kInputs == 4) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const auto all = reinterpret_cast<__m256i>(codes);
    const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(words), _mm_packs_epi16(halves, halves));
#else
    typedef signed char Bytes __attribute__((vector_size(kLanes)));
    const Bytes bytes = __builtin_convertvector(codes, Bytes);
    __builtin_memcpy(words, &bytes, sizeof bytes);
#endif
    return kLanes;
  } else {  // of every four, 0 with 2 and 1 with 3
    const Ints low = codes & 0xFFFF;
#if defined(__AVX512F__)
    const Ints high = __builtin_shufflevector(codes, codes, 2, 3, 2, 3, 6, 7, 6, 7, 10, 11, 10, 11, 14, 15, 14, 15);
    const Ints pairs = low | high << 16;
    const Ints packed = __builtin_shufflevector(pairs, pairs, 0, 1, 4, 5, 8, 9, 12, 13, 0, 0, 0, 0, 0, 0, 0, 0);
#elif defined(__AVX2__)
    const Ints pairs = low | __builtin_shufflevector(codes, codes, 2, 3, 2, 3, 6, 7, 6, 7) << 16;
    const Ints packed = __builtin_shufflevector(pairs, pairs, 0, 1, 4, 5, 0, 0, 0, 0);
#else
    const Ints packed = low | __builtin_shufflevector(codes, codes, 2, 3, 2, 3) << 16;
#endif
    __builtin_memcpy(words, &packed, kLanes * 2);
    return kLanes * 2;
  }
}

// Of kLanes groups: their scales, what their values are multiplied with for codes, and which have only numbers.
struct GroupScales {
  float scale[kLanes];
  float inverse[kLanes];
  int32_t finite[kLanes];
};

// `most`: the largest magnitudes. All at once: one after the other, groups would wait for each other's divisions.
EXPERT_INLINE void scale_groups(const float (&most)[kLanes], GroupScales& groups) {
  const Floats largest = load(most);
  const Ints finite = largest <= splat(0x1.fffffep127F);
  const Ints counts = finite & (largest > splat(0x1p-100F));
  const Floats scale = counts ? largest / splat(127.0F) : Floats{};
  store(groups.scale, finite ? scale : splat(__builtin_nanf("")));
  store(groups.inverse, counts ? splat(127.0F) / largest : Floats{});
  __builtin_memcpy(groups.finite, &finite, sizeof finite);
}

// Returns the sum of the codes.
template <class Dot>
EXPERT_INLINE int32_t put_group(const float* x, float inverse, bool finite, unsigned char* words) {
  Ints sums = {};
  for (int64_t i = 0; i < kGroup; i += kLanes) {
    const Ints code = finite ? round_codes(load(x + i) * splat(inverse)) : Ints{};
    sums += code;
    words += put_codes<Dot>(code, words);
  }
  return sum_lanes(sums);
}

template <class Codes>
void quantise_row_for(const float* x, int64_t inputs, InputRange part, unsigned char* out) {
  typedef typename Codes::Dot Dot;
  const int64_t groups = group_count(inputs);
  const int64_t end = group_count(part.end);
  float* scales = reinterpret_cast<float*>(out + groups * kGroupCodeBytes);
  auto* corrections = reinterpret_cast<uint32_t*>(scales + groups);
  float padded[kGroup] = {};  // the last group, where it is cut short
  for (int64_t i = (groups - 1) * kGroup; end == groups && i < inputs; ++i) padded[i % kGroup] = x[i];
  const auto values_of_group = [&](int64_t g) __attribute__((always_inline)) {
    return g * kGroup + kGroup <= inputs ? x + g * kGroup : padded;
  };
  for (int64_t first = part.begin / kGroup; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    claim_lines(out + first * kCodeBytes<Dot>, count * kCodeBytes<Dot>);
    claim_lines(reinterpret_cast<const unsigned char*>(scales + first), count * 4);
    claim_lines(reinterpret_cast<const unsigned char*>(corrections + first), count * 4);
    float most[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) most[i] = largest(values_of_group(first + i));
    GroupScales block;
    scale_groups(most, block);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t g = first + i;
      const int32_t sum = put_group<Dot>(values_of_group(g), block.inverse[i], block.finite[i] != 0, out + g * kCodeBytes<Dot>);
      scales[g] = block.scale[i];
      corrections[g] = Codes::kStorage == Storage::int8 ? static_cast<uint32_t>(-Int8Codes::kZero * sum)
                                                        : bits_of(static_cast<float>(-sum));
    }
  }
}

}  // namespace

void gemm_quantised(Storage storage, const GemmArgs& args) {
  if (storage == Storage::int8) {
    gemm_of<Int8Codes>(args);
  } else {
    gemm_of<Int4Codes>(args);
  }
}

void quantise_row(Storage storage, const float* x, int64_t inputs, InputRange part, unsigned char* out) {
  if (storage == Storage::int8) {
    quantise_row_for<Int8Codes>(x, inputs, part, out);
  } else {
    quantise_row_for<Int4Codes>(x, inputs, part, out);
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
