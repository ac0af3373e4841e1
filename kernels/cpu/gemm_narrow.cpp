// Products with narrow BF16, bit for bit those with BF16: units are widened in registers and multiplied there, or, for the tile
// unit, panels are widened into scratch.
#if defined(EXPERT_TILE_UNIT)
#include "kernels/cpu/simd.h"
#else
#include "kernels/cpu/gemm_rows.h"
#endif

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kUnitLines = kNarrowInputs / 2;

// The panel's exceptions, met in order.
class Exceptions {
 public:
  __attribute__((always_inline)) void open(const unsigned char* first, int64_t most) {
    next_ = first;
    end_ = first + 4 * most;
  }

  // The unit that has the next one, or one that no panel has.
  int64_t unit() const { return static_cast<int64_t>(word() / (kUnitLines << 13)); }

  // Puts those of a unit into its four lines.
  __attribute__((noinline)) void put(unsigned char* lines) {
    for (const int64_t here = unit(); unit() == here && next_ < end_; next_ += 4) {
      lines[word() / (1U << 13) % kUnitLines * 64 + (word() >> 8 & 31U) * 2 + 1] = static_cast<unsigned char>(word());
    }
  }

 private:
  uint32_t word() const {
    uint32_t word = kNoException;
    if (next_ < end_) __builtin_memcpy(&word, next_, sizeof word);
    return word;
  }

  const unsigned char* next_;
  const unsigned char* end_;
};

class NarrowPanel {
 public:
  __attribute__((always_inline)) void open(const GemmArgs& a, int64_t inputs, int64_t index) {
    const auto* panel =
        static_cast<const unsigned char*>(a.panels) + index * panel_bytes(Storage::narrow_bf16, inputs);
    units_ = panel + narrow_head_bytes(inputs);
    exceptions_.open(panel + kNarrowBases, most_exceptions(inputs));
    next_exception_ = exceptions_.unit();
    // Byte 16 g + i: the base of row 4 g + i / 2 % 4.
    const __m512i words = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(panel)));
    const __m512i twice = _mm512_or_si512(words, _mm512_slli_epi32(words, 8));
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13));
    bases_ = _mm512_shuffle_epi8(twice, order);
  }

  // The lines of the unit `unit`; units are asked for in ascending order, each once.
  __attribute__((always_inline)) void read(int64_t unit, Words (&line)[kUnitLines]) {
    widen(units_ + unit * kNarrowUnitBytes, line);
    if (unit != next_exception_) [[likely]] return;
    alignas(64) unsigned char bytes[sizeof line];
    __builtin_memcpy(bytes, line, sizeof line);
    exceptions_.put(bytes);
    __builtin_memcpy(line, bytes, sizeof line);
    next_exception_ = exceptions_.unit();
  }

  __attribute__((always_inline)) void prefetch(int64_t unit) const {
    for (int64_t at = 0; at < kNarrowUnitBytes; at += 64) __builtin_prefetch(units_ + unit * kNarrowUnitBytes + at);
  }

 private:
  __attribute__((always_inline)) void widen(const unsigned char* unit, Words (&line)[kUnitLines]) const {
    const __m512i codes = _mm512_loadu_si512(unit);
    const __m512i half = _mm512_set1_epi8(15);
    // What a code adds to the base: its distance below, and its sign.
    const __m512i steps = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, -1, -2, -3, -4, -5, -6, -7, -128, 127, 126, 125, 124, 123, 122, 121));
    const __m512i both[2] = {_mm512_and_si512(codes, half), _mm512_and_si512(_mm512_srli_epi16(codes, 4), half)};
    for (int i = 0; i < 2; ++i) {
      const __m512i high = _mm512_add_epi8(bases_, _mm512_shuffle_epi8(steps, both[i]));
      const __m512i low = _mm512_loadu_si512(unit + 64 + 64 * i);
      line[2 * i] = reinterpret_cast<Words>(_mm512_unpacklo_epi8(low, high));
      line[2 * i + 1] = reinterpret_cast<Words>(_mm512_unpackhi_epi8(low, high));
    }
  }

  Exceptions exceptions_;
  const unsigned char* units_;
  int64_t next_exception_;
  __m512i bases_;
};

#if defined(EXPERT_TILE_UNIT)

constexpr int64_t kMostUnpacked = 8;  // panels at a time: then the tiles' rows of x come from cache

void unpack_panel(const GemmArgs& a, int64_t panel, unsigned char* to) {
  NarrowPanel narrow;
  narrow.open(a, a.inputs, panel);
  for (int64_t unit = 0; unit < a.inputs / kNarrowInputs; ++unit) {
    Words line[kUnitLines];
    narrow.read(unit, line);
    __builtin_memcpy(to + unit * static_cast<int64_t>(sizeof line), line, sizeof line);
  }
}

// A few panels at a time as BF16 in scratch.
void over_unpacked(const GemmArgs& a) {
  const int64_t bytes = panel_bytes(Storage::bf16, a.inputs);
  const int64_t room = kUnpackScratch * static_cast<int64_t>(sizeof(float)) / bytes;
  const int64_t step = room < kMostUnpacked ? room : kMostUnpacked;
  auto* unpacked = reinterpret_cast<unsigned char*>(a.scratch + kBlockScratch);
  for (int64_t panel = a.panel_begin; panel < a.panel_end; panel += step) {
    GemmArgs part = a;
    part.panels = unpacked;
    part.panel_begin = 0;
    part.panel_end = a.panel_end - panel < step ? a.panel_end - panel : step;
    part.outputs = a.outputs - panel * kPanelRows;
    part.y = a.y + panel * kPanelRows;
    for (int64_t p = 0; p < part.panel_end; ++p) unpack_panel(a, panel + p, unpacked + p * bytes);
    gemm_tiles(part);
  }
}

#else

constexpr int64_t kUnitsAhead = 16;  // asked for ahead of several rows, which the hardware does not follow well

// `a` counts inputs in pairs.
template <int R, int P>
EXPERT_INLINE void narrow_tile(const GemmArgs& a, int64_t panel, int64_t row) {
  const float* x = a.x + row * a.x_stride;
  NarrowPanel narrow[P];
  for (int p = 0; p < P; ++p) narrow[p].open(a, 2 * a.inputs, panel + p);
  for (int64_t k = 0; k < a.inputs; k += kInputBlock) {
    const int64_t end = k + block_inputs(a, k);
    Tile<R, P> tile;
    clear(tile);
    for (int64_t j = k; j < end; j += kUnitLines) {
      Words line[P][kUnitLines];
      for (int p = 0; p < P; ++p) {
        if constexpr (R > 3) narrow[p].prefetch(j / kUnitLines + kUnitsAhead);
        narrow[p].read(j / kUnitLines, line[p]);
      }
      for (int i = 0; i < kUnitLines; ++i) {
        const auto weight = [&](int p) __attribute__((always_inline)) { return reinterpret_cast<Floats>(line[p][i]); };
        multiply_input<R, P, PairStep>(tile, x + j + i, a.x_stride, weight);
      }
    }
    put_tile(a, tile, panel, row, k);
  }
}

// A panel at a time, so that memory gives it once.
struct NarrowTiles {
  const GemmArgs& a;
  int64_t panel;
  int64_t panels;

  template <int R>
  __attribute__((always_inline)) void run(int64_t row) const {
    if constexpr (R == 2 || R == 3) {
      if (panels == 2) return narrow_tile<R, 2>(a, panel, row);
    }
    for (int64_t p = panel; p < panel + panels; ++p) narrow_tile<R, 1>(a, p, row);
  }
};

#endif

}  // namespace

void gemm_narrow(const GemmArgs& args) {
#if defined(EXPERT_TILE_UNIT)
  over_unpacked(args);
#else
  GemmArgs pairs = args;
  pairs.x = reinterpret_cast<const float*>(args.prepared);
  pairs.x_stride = pair_row_bytes(args.inputs) / static_cast<int64_t>(sizeof(float));
  pairs.inputs = args.inputs / 2;
  // Two or three rows take two panels, which hides how long a step takes; one row is as fast as memory with one.
  const int64_t step = args.rows == 2 || args.rows == 3 ? 2 : 1;
  for (int64_t panel = args.panel_begin; panel < args.panel_end; panel += step) {
    const int64_t panels = args.panel_end - panel < step ? 1 : step;
    over_tiles<kRegisterRows>(0, args.rows, NarrowTiles{pairs, panel, panels});
  }
#endif
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
