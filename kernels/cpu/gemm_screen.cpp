// Products with a screen's panels (kernels/cpu/screen.h): of few rows, for each of them
//   y += (sum of code * code of x - sum of (3 + u) * code of x) * (scale of the weights * scale of x)
// in FP32, groups in ascending order, and the row's scale at the end.
#include "kernels/cpu/quantised_row.h"
#include "kernels/cpu/screen.h"
#include "kernels/cpu/tile.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

typedef Int4Codes::Dot Dot;  // codes are no larger
constexpr int kSteps = Int4Codes::kSteps;  // of a piece: eight inputs

// Bytes with a code in bits 0 to 2 of each half: the low bits of every two pieces share a line, the high ones of all.
template <int piece>
EXPERT_INLINE Words halves_of(Words low, Words high) {
  const Words two = piece % 2 == 0 ? low : low >> 2;
  const Words one = piece < 2 ? high << (2 - piece) : high >> (piece - 2);
#if defined(__AVX512F__)  // one instruction instead of two
  return reinterpret_cast<Words>(_mm512_ternarylogic_epi32(reinterpret_cast<__m512i>(splat_words(0x33333333U)),
                                                           reinterpret_cast<__m512i>(two),
                                                           reinterpret_cast<__m512i>(one), 0xCA));
#else
  return (two & 0x33333333U) | (one & ~0x33333333U);
#endif
}

// Sums of codes times activations. Wide ones have room for codes sixteen times as large, which saves shifting the upper
// halves down one by one.
struct ScreenSum {
  static constexpr bool kShiftsLast = kSteps == 2 && Dot::kWide;
  Dot::Sum lower;
  Dot::Sum upper;

  // `x`: the piece's words.
  __attribute__((always_inline)) void add(Words halves, const unsigned char* x) {
    if constexpr (kSteps == 2) {
      lower = Dot::add(lower, halves & 0x07070707U, word(x, 0));
      if constexpr (kShiftsLast) {
        upper = Dot::add(upper, halves & 0x70707070U, word(x, 1));
      } else {
        lower = Dot::add(lower, (halves >> 4) & 0x07070707U, word(x, 1));
      }
    } else {
      Words step[kSteps];
      Int4Codes::unpack(halves & 0x77777777U, step);
      for (int s = 0; s < kSteps; ++s) lower = Dot::add(lower, step[s], word(x, s));
    }
  }
  __attribute__((always_inline)) Ints total() const {
    if constexpr (kShiftsLast) return Dot::total(lower) + (Dot::total(upper) >> 4);
    return Dot::total(lower);
  }
};

EXPERT_INLINE Floats unpack_screen_scales(const unsigned char* scales) {
  return reinterpret_cast<Floats>((scale_bytes(scales) << kScreenScaleShift) + splat_words(kScreenScaleBits));
}

// A row of activations as refine() reads it, from one group on.
struct FourthRow {
  const int32_t* codes;
  const signed char* bytes;
};

#if defined(__AVX512VNNI__)

// sums + the codes whose bit is set, of each of the `count` <= 16 groups times its scale, in lanes that are to be added up. Two
// groups of bytes at a time, each in half a vector.
EXPERT_INLINE void add_set(const unsigned char* bits, const FourthRow& x, int64_t count, Floats scale, Floats (&sums)[2]) {
  const Words pair = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  const __m512i ones = _mm512_set1_epi8(1);
  const auto add = [&](int64_t i, uint64_t two) __attribute__((always_inline)) {
    const __m512i set = _mm512_maskz_loadu_epi8(two, x.bytes + i * kGroup);
    const auto sum = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, set));
    const Words lanes = pair + splat_words(static_cast<uint32_t>(i));
    const Floats each = _mm512_maskz_permutexvar_ps(0xFFFF, reinterpret_cast<__m512i>(lanes), scale);
    sums[i / 2 % 2] = fma(to_floats(sum), each, sums[i / 2 % 2]);
  };
  for (int64_t i = 0; i + 1 < count; i += 2) {
    uint64_t two;
    __builtin_memcpy(&two, bits + i * 4, sizeof two);
    add(i, two);
  }
  if (count % 2 == 0) return;
  uint32_t one;
  __builtin_memcpy(&one, bits + (count - 1) * 4, sizeof one);
  add(count - 1, one);
}

#else

EXPERT_INLINE Words bits_from(int first) {
  Words bits;
  for (int i = 0; i < kLanes; ++i) bits[i] = 1U << (first + i);
  return bits;
}

// The sum of a group's codes whose bit is set, in parts.
EXPERT_INLINE Ints sum_where(uint32_t bits, const int32_t* codes) {
  Ints sum = {};
#pragma GCC unroll 8
  for (int i = 0; i < kGroup; i += kLanes) {
    Ints values;
    __builtin_memcpy(&values, codes + i, sizeof values);
    sum += (splat_words(bits) & bits_from(i)) != 0U ? values : Ints{};
  }
  return sum;
}

// sums + the codes whose bit is set, of each of the `count` <= kLanes groups times its scale, in lanes that are to be added up.
EXPERT_INLINE void add_set(const unsigned char* bits, const FourthRow& x, int64_t count, Floats scale, Floats (&sums)[2]) {
  float each[kLanes];
  store(each, scale);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t word_bits;
    __builtin_memcpy(&word_bits, bits + i * 4, sizeof word_bits);
    sums[0] = fma(to_floats(sum_where(word_bits, x.codes + i * kGroup)), splat(each[i]), sums[0]);
  }
}

#endif

template <int R>
struct ScreenTile {
  ScreenSum sum[R][kPanelVectors];

  template <int piece>
  __attribute__((always_inline)) void add(const unsigned char* lines, const unsigned char* x, int64_t stride) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const Words halves = halves_of<piece>(line_words(lines + piece / 2 * 64, v), line_words(lines + 128, v));
      for (int r = 0; r < R; ++r) sum[r][v].add(halves, x + r * stride + piece * kSteps * 4);
    }
  }
};

struct ScreenRows {
  const GemmArgs& a;

  template <int R>
  __attribute__((always_inline)) void panel(int64_t panel, int64_t row) const {
    const int64_t groups = group_count(a.inputs);
    const int64_t stride = quantised_row_bytes(a.inputs);
    const unsigned char* rows = codes_of(a, row);
    const unsigned char* at = static_cast<const unsigned char*>(a.panels) + panel * screen_panel_bytes(a.inputs);
    Floats y[R][kPanelVectors] = {};
    for (int64_t g = 0; g < groups; ++g) {
      const unsigned char* lines = at + screen_codes_at(g);
      Floats scale[kPanelVectors];
      for (int v = 0; v < kPanelVectors; ++v) scale[v] = unpack_screen_scales(at + screen_scales_at(g) + v * kLanes);
      if constexpr (R > 1 || kAskForOneRow) {
        for (int l = 0; l < 3; ++l) __builtin_prefetch(lines + l * 64 + kPrefetchBytes);
      }
      const unsigned char* x = rows + g * kCodeBytes<Dot>;
      ScreenTile<R> tile = {};
      tile.template add<0>(lines, x, stride);
      tile.template add<1>(lines, x, stride);
      tile.template add<2>(lines, x, stride);
      tile.template add<3>(lines, x, stride);
      for (int r = 0; r < R; ++r) {
        const RowGroup x_group = row_group<Dot>(rows + r * stride, g, groups);
        for (int v = 0; v < kPanelVectors; ++v) {
          const Floats product = to_floats(tile.sum[r][v].total()) + splat(float_from_bits(x_group.correction));
          y[r][v] = fma(product, scale[v] * splat(x_group.scale), y[r][v]);
        }
      }
    }
    for (int v = 0; v < kPanelVectors; ++v) {
      const Floats scale = reinterpret_cast<Floats>(line_words(at, v));
      for (int r = 0; r < R; ++r) put(a, row + r, panel * kPanelRows + v * kLanes, y[r][v] * scale);
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

Refined refine(const unsigned char* bits, int64_t inputs, const int32_t* x) {
  const int64_t groups = group_count(inputs);
  const int64_t padded = fourth_groups(inputs);
  const auto* scales = reinterpret_cast<const float*>(x + groups * kGroup);
  const auto* bytes = reinterpret_cast<const signed char*>(x + fourth_bytes_at(inputs));
  Floats set[2] = {};  // codes whose bit is set: two chains
  Floats all = {};     // all codes
  Floats spread = {};
  for (int64_t first = 0; first < groups; first += kLanes) {
    const int64_t count = groups - first < kLanes ? groups - first : kLanes;
    unsigned char last[kLanes] = {};
    const unsigned char* steps = bits + 4 + first;
    if (count < kLanes) {
      for (int64_t i = 0; i < count; ++i) last[i] = steps[i];
      steps = last;
    }
    const Floats scale = unpack_screen_scales(steps) * load(scales + first);
    all = fma(scale, load(scales + padded + first), all);
    spread = fma(scale * scale, load(scales + 2 * padded + first), spread);
    add_set(bits + 4 + groups + first * 4, {x + first * kGroup, bytes + first * kGroup}, count, scale, set);
  }
  float row_scale;
  __builtin_memcpy(&row_scale, bits, sizeof row_scale);
  const float factor = row_scale * scales[3 * padded];
  constexpr auto kHalf = static_cast<float>(0.5 * kScreenSlack * kScreenConfidence);
  return {sum_lanes((set[0] + set[1]) * 0.5F - all * 0.25F) * factor,
          kHalf * __builtin_sqrtf(sum_lanes(spread)) * factor};
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
