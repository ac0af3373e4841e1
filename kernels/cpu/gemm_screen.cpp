// Products with a screen's panels and finer bits (kernels/cpu/screen.h), of few rows. Sums of codes times codes are whole numbers
// and exact, so all instruction sets see the same estimates.
#include "kernels/cpu/quantised_row.h"
#include "kernels/cpu/screen.h"
#include "kernels/cpu/tile.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

typedef Int4Codes::Dot Dot;  // codes are no larger
constexpr bool kBytes = Dot::kInputs == 4;
constexpr uint32_t kCode = 0x03030303U;
constexpr int kCodes = 4;  // of a byte

// Where of a prepared row the activations of four inputs lie, by their number: as bytes, or as pairs 0 and 2 and, 64 bytes on, 1 and 3.
EXPERT_INLINE const unsigned char* four_inputs(const unsigned char* row, int64_t inputs, int64_t four) {
  if constexpr (kBytes) return row + 64 + four * 4;
  return row + screened_pairs_at(inputs) + (four / 16 * 32 + four % 16) * 4;
}

// sum + the codes from bit 2 q on times the activations that `x` gives of the first (0) and second (1) step.
template <class Activations>
EXPERT_INLINE Dot::Sum add_codes(Dot::Sum sum, Words codes, int q, const Activations& x) {
  if constexpr (kBytes) return Dot::add(sum, (codes >> (2 * q)) & kCode, x(0));
  sum = Dot::add(sum, (codes >> (2 * q)) & 0x00030003U, x(0));
  return Dot::add(sum, (codes >> (2 * q + 8)) & 0x00030003U, x(64));
}

// Sums of 32 bits have room for codes that lie where they are read, up to 64 times as large: one instruction less for each,
// and a chain for each, too many for more than one row.
struct CodesInPlace {
  Ints part[kCodes];

  EXPERT_INLINE Ints codes(Words line, int q) {
#if defined(EXPERT_SIGNED_DOT)
    if (q == 3) return reinterpret_cast<Ints>((line >> 6) & kCode);
#endif
    return reinterpret_cast<Ints>(line & (kCode << (2 * q)));
  }
  __attribute__((always_inline)) void add(Words line, const unsigned char* x) {
    for (int q = 0; q < kCodes; ++q) part[q] = Dot::add(part[q], reinterpret_cast<Words>(codes(line, q)), word(x, q));
  }
  __attribute__((always_inline)) Ints total() const {
#if defined(EXPERT_SIGNED_DOT)
    return Dot::total(part[0]) + (Dot::total(part[1]) >> 2) + (Dot::total(part[2]) >> 4) + Dot::total(part[3]);
#else
    return Dot::total(part[0]) + (Dot::total(part[1]) >> 2) + (Dot::total(part[2]) >> 4) + (Dot::total(part[3]) >> 6);
#endif
  }
};

struct ShiftedCodes {
  Dot::Sum sum;

  __attribute__((always_inline)) void add(Words line, const unsigned char* x) {
    for (int q = 0; q < kCodes; ++q) {
      sum = add_codes(sum, line, q, [&](int at) __attribute__((always_inline)) { return word(x + at, q); });
    }
  }
  __attribute__((always_inline)) Ints total() const { return Dot::total(sum); }
};

template <int R>
using CodeSums = std::conditional_t<R == 1 && Dot::kWide && kBytes, CodesInPlace, ShiftedCodes>;

// Lines whose sums a lane holds: those of 16 bits 43 products of two codes.
constexpr int64_t kLinesAtOnce = Dot::kWide ? kMostScreened / kScreenLine : 8;

struct ScreenRows {
  const GemmArgs& a;

  template <int R>
  __attribute__((always_inline)) void panel(int64_t panel, int64_t row) const {
    const int64_t lines = (a.inputs + kScreenLine - 1) / kScreenLine;
    const int64_t stride = screened_row_bytes(a.inputs);
    const unsigned char* rows = a.prepared + row * stride;
    const unsigned char* at = static_cast<const unsigned char*>(a.panels) + panel * screen_panel_bytes(a.inputs);
    Ints total[R][kPanelVectors] = {};
    for (int64_t first = 0; first < lines; first += kLinesAtOnce) {
      const int64_t last = lines - first < kLinesAtOnce ? lines : first + kLinesAtOnce;
      CodeSums<R> sum[R][kPanelVectors] = {};
      for (int64_t l = first; l < last; ++l) {
        const unsigned char* line = at + 64 + l * 64;
        const unsigned char* x = four_inputs(rows, a.inputs, l * kCodes);
        __builtin_prefetch(line + kPrefetchBytes);
        for (int v = 0; v < kPanelVectors; ++v) {
          const Words codes = line_words(line, v);
          for (int r = 0; r < R; ++r) sum[r][v].add(codes, x + r * stride);
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kPanelVectors; ++v) total[r][v] += sum[r][v].total();
      }
    }
    for (int r = 0; r < R; ++r) {
      ScreenedRow x;
      __builtin_memcpy(&x, rows + r * stride, sizeof x);
      for (int v = 0; v < kPanelVectors; ++v) {
        const Floats factor = reinterpret_cast<Floats>(line_words(at, v)) * splat(x.scale);
        put(a, row + r, panel * kPanelRows + v * kLanes, (to_floats(total[r][v]) + splat(x.correction)) * factor);
      }
    }
  }

  template <int R>
  void run(int64_t row) const {
    for (int64_t p = a.panel_begin; p < a.panel_end; ++p) panel<R>(p, row);
  }
};

}  // namespace

void gemm_screen(const GemmArgs& a) {
  constexpr int kMost = kRegisterRows == 12 ? 8 : 3;
  over_tiles<kMost>(0, a.rows, ScreenRows{a});
}

float refine(const FineRow& row, const unsigned char* fine, int64_t inputs, const unsigned char* x, float estimate) {
  constexpr int kVectors = 16 / kLanes;  // of a line
  ScreenedRow activations;
  __builtin_memcpy(&activations, x, sizeof activations);
  Ints total = {};
  for (int64_t l = 0; l < fine_lines(inputs); ++l) {
    for (int v = 0; v < kVectors; ++v) {
      const Words codes = load_words(fine + l * 64 + v * kLanes * 4);
      Dot::Sum sum = {};
      for (int q = 0; q < kCodes; ++q) {
        const unsigned char* from = four_inputs(x, inputs, (l * kCodes + q) * 16 + v * kLanes);
        sum = add_codes(sum, codes, q, [&](int at) __attribute__((always_inline)) { return load_words(from + at); });
      }
      total += Dot::total(sum);
    }
  }
  const float finer = static_cast<float>(sum_lanes(total)) + activations.correction;
  return row.ratio * estimate + finer * (row.factor * activations.scale);
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
