// Products with a screen's panels (kernels/cpu/screen.h): of few rows, for each of them
//   y += (sum of code * code of x - sum of (3 + u) * code of x) * (scale of the weights * scale of x)
// in FP32, groups in ascending order, and the row's scale at the end.
#include "kernels/cpu/quantised_row.h"
#include "kernels/cpu/screen.h"
#include "kernels/cpu/tile.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

typedef Int4Codes::Dot Dot;  // codes are no larger
constexpr int kPieces = 4;   // of a group: eight inputs each
constexpr int kSteps = Int4Codes::kSteps;  // of a piece

// One piece's codes, as a line of INT4 has them: the low bits of every two pieces share a line, the high ones of all.
template <int piece>
EXPERT_INLINE void unpack_piece(Words low, Words high, Words (&step)[kSteps]) {
  const Words two = piece % 2 == 0 ? low : low >> 2;
  const Words one = piece < 2 ? high << (2 - piece) : high >> (piece - 2);
  Int4Codes::unpack((two & 0x33333333U) | (one & 0x44444444U), step);
}

EXPERT_INLINE Floats unpack_screen_scales(const unsigned char* scales) {
  return reinterpret_cast<Floats>((scale_bytes(scales) << kScreenScaleShift) + splat_words(kScreenScaleBits));
}

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

template <int R>
struct ScreenTile {
  Dot::Sum sum[R][kPanelVectors];

  template <int piece>
  __attribute__((always_inline)) void add(const unsigned char* lines, const unsigned char* x, int64_t stride) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Words step[kSteps];
      unpack_piece<piece>(line_words(lines + piece / 2 * 64, v), line_words(lines + 128, v), step);
      for (int s = 0; s < kSteps; ++s) {
        for (int r = 0; r < R; ++r) {
          sum[r][v] = Dot::add(sum[r][v], step[s], word(x + r * stride, piece * kSteps + s));
        }
      }
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
          const Floats product = to_floats(Dot::total(tile.sum[r][v])) + splat(float_from_bits(x_group.correction));
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
  Floats set[2] = {};  // codes whose bit is set: two chains
  Floats all = {};     // all codes
  Floats spread = {};
  for (int64_t first = 0; first < groups; first += kLanes) {
    const unsigned char* bytes = bits + 4 + first;
    const int64_t count = groups - first < kLanes ? groups - first : kLanes;
    unsigned char last[kLanes] = {};
    if (count < kLanes) {
      for (int64_t i = 0; i < count; ++i) last[i] = bytes[i];
      bytes = last;
    }
    const Floats scale = unpack_screen_scales(bytes) * load(scales + first);
    all = fma(scale, load(scales + padded + first), all);
    spread = fma(scale * scale, load(scales + 2 * padded + first), spread);
    float each[kLanes];
    store(each, scale);
    for (int64_t i = 0; i < count; ++i) {
      uint32_t word_bits;
      __builtin_memcpy(&word_bits, bits + 4 + groups + (first + i) * 4, sizeof word_bits);
      const Floats sum = to_floats(sum_where(word_bits, x + (first + i) * kGroup));
      set[0] = fma(sum, splat(each[i]), set[0]);
      if (++i == count) break;
      __builtin_memcpy(&word_bits, bits + 4 + groups + (first + i) * 4, sizeof word_bits);
      set[1] = fma(to_floats(sum_where(word_bits, x + (first + i) * kGroup)), splat(each[i]), set[1]);
    }
  }
  float row_scale;
  __builtin_memcpy(&row_scale, bits, sizeof row_scale);
  const float factor = row_scale * scales[3 * padded];
  constexpr auto kHalf = static_cast<float>(0.5 * kScreenSlack * kScreenConfidence);
  return {sum_lanes((set[0] + set[1]) * 0.5F - all * 0.25F) * factor,
          kHalf * __builtin_sqrtf(sum_lanes(spread)) * factor};
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
