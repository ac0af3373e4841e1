// Repacking of row-major factors into the layout of kernels/factors.h: values are converted and scaled on the way.
#include <string.h>

#include "kernels/cpu/narrow_panel.h"
#include "kernels/cpu/turn_words.h"

namespace expert::kernels::EXPERT_ISA_FLOATS {

namespace {

constexpr int64_t kPiece = 512;                           // values converted at a time
constexpr int64_t kRankPiece = kPiece / kPanelRows;      // ranks of a panel of B at a time
static_assert(kPiece % 32 == 0 && kRankPiece % 2 == 0);  // whole lines

void read_scaled(Source type, const unsigned char* from, int64_t count, float scale, float* to) {
  if (type == Source::f32) {
    memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  } else {
    uint16_t bits[kPiece];
    memcpy(bits, from, static_cast<size_t>(count) * sizeof(uint16_t));
    if (type == Source::bf16) {
      for (int64_t i = 0; i < count; ++i) to[i] = float_from_bf16(bits[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = float_from_f16(bits[i]);
    }
  }
  if (scale != 1.0F) {
    for (int64_t i = 0; i < count; ++i) to[i] *= scale;
  }
}

// The exponent of a power of two that is neither huge nor tiny; 0 for 1 and for every other value.
int exponent_of_power(float scale) {
  const uint32_t bits = bits_of(scale);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  return (bits & 0x807FFFFFU) == 0 && exponent > -100 && exponent < 100 ? exponent : 0;
}

using Halves = uint16_t __attribute__((vector_size(16)));
constexpr int64_t kHalves = 8;
using WideHalves = uint16_t __attribute__((vector_size(64)));
constexpr int64_t kWideHalves = 32;

// What multiplying BF16 values by 2^exponent does where it only moves exponents: to zeros, and to normal numbers that
// stay normal.
class ExponentShift {
 public:
  explicit ExponentShift(int exponent)
      : step_(static_cast<uint16_t>(exponent * 128)),
        least_(static_cast<int16_t>((exponent < 0 ? 1 - exponent : 1) * 128)),
        most_(static_cast<int16_t>((exponent > 0 ? 255 - exponent : 255) * 128 - 1)) {}

  // False where a value needs rounding; `to` is of no use then.
  bool shift(const unsigned char* from, int64_t count, uint16_t* to) {
    int64_t i = 0;
    for (; i + kWideHalves <= count; i += kWideHalves) shift_vector(from + i * 2, kWideHalves, to + i);
    if (i < count) shift_vector(from + i * 2, count - i, to + i);
    for (int lane = 0; lane < kWideHalves; ++lane) {
      if (fit_[lane] == 0) return false;
    }
    return true;
  }

 private:
  using Signed = int16_t __attribute__((vector_size(64)));

  __attribute__((always_inline)) void shift_vector(const unsigned char* from, int64_t count, uint16_t* to) {
    WideHalves value{};
    memcpy(&value, from, static_cast<size_t>(count) * sizeof(uint16_t));
    const auto magnitude = reinterpret_cast<Signed>(value & uint16_t{0x7FFF});
    const Signed zero = magnitude == int16_t{0};
    fit_ &= zero | ((magnitude >= least_) & (magnitude <= most_));
    value += reinterpret_cast<WideHalves>(~zero) & step_;
    memcpy(to, &value, static_cast<size_t>(count) * sizeof(uint16_t));
  }

  const uint16_t step_;
  const int16_t least_;  // as bits
  const int16_t most_;
  Signed fit_ = Signed{} == Signed{};
};

// `count` <= kPiece values as BF16.
void read_bf16(Source type, const unsigned char* from, int64_t count, float scale, uint16_t* to) {
  if (type == Source::bf16) {
    const int exponent = exponent_of_power(scale);
    if (exponent != 0) {
      if (ExponentShift(exponent).shift(from, count, to)) return;
    } else if (scale == 1.0F) {
      memcpy(to, from, static_cast<size_t>(count) * sizeof(uint16_t));
      return;
    }
  }
  float values[kPiece];
  read_scaled(type, from, count, scale, values);
  for (int64_t i = 0; i < count; ++i) to[i] = bf16_from_float(values[i]);
}

int64_t value_bytes(Source type) { return type == Source::f32 ? 4 : 2; }

float scale_of(const FactorScale& scale, int64_t row) {
  return scale.row_scale == nullptr ? scale.scale : scale.scale * scale.row_scale[row];
}

// to[i] = low half from[i], high half from[16 + i], for eight words.
void pair_halves(const uint16_t* from, unsigned char* to) {
  Halves low, high;
  memcpy(&low, from, sizeof low);
  memcpy(&high, from + 16, sizeof high);
  const Halves first = __builtin_shufflevector(low, high, 0, 8, 1, 9, 2, 10, 3, 11);
  const Halves second = __builtin_shufflevector(low, high, 4, 12, 5, 13, 6, 14, 7, 15);
  memcpy(to, &first, sizeof first);
  memcpy(to + sizeof first, &second, sizeof second);
}

// One piece of a row of A: `count` values that start at a whole line.
void pack_row_piece(Source type, const unsigned char* from, int64_t count, float scale, Storage storage,
                    unsigned char* to) {
  if (storage == Storage::f32) {
    float values[kPiece] = {};
    read_scaled(type, from, count, scale, values);
    memcpy(to, values, static_cast<size_t>(factor_row_bytes(storage, count)));
    return;
  }
  uint16_t values[kPiece];
  read_bf16(type, from, count, scale, values);
  memset(values + count, 0, static_cast<size_t>(kPiece - count) * sizeof(uint16_t));
  const int64_t lines = factor_row_bytes(storage, count) / 64;
  for (int64_t line = 0; line < lines; ++line) {
    pair_halves(values + line * 32, to + line * 64);
    pair_halves(values + line * 32 + kHalves, to + line * 64 + 32);
  }
}

// Ranks [k, k + count) of `rows` <= 16 rows of B, each of type T, one row after the other in `values`; rows that are
// not there become zeros. `convert(from, count, scale, to)` reads a run of values.
template <class T, class Convert>
void gather_ranks(Source type, const unsigned char* from, int64_t rows, int64_t rank, int64_t count,
                  const FactorScale& scale, T* values, Convert convert) {
  if (count == rank && scale.row_scale == nullptr) {  // one run: rows of a usual rank are too short to pay for a call each
    convert(from, rows * count, scale.scale, values);
  } else {
    for (int64_t r = 0; r < rows; ++r) {
      convert(from + r * rank * value_bytes(type), count, scale_of(scale, r), values + r * count);
    }
  }
  memset(values + rows * count, 0, static_cast<size_t>((kPanelRows - rows) * count) * sizeof(T));
}

// One piece of a panel of B: `count` <= kRankPiece ranks of `rows` <= 16 rows.
void pack_panel_piece(Source type, const unsigned char* from, int64_t rows, int64_t rank, int64_t count,
                      const FactorScale& scale, Storage storage, unsigned char* to) {
  if (storage == Storage::f32) {
    float values[kPiece];
    gather_ranks(type, from, rows, rank, count, scale, values,
                 [&](auto... run) { read_scaled(type, run...); });
    turn_words<kPanelRows>(values, count * 4, count, to);
    return;
  }
  uint16_t values[kPiece];
  gather_ranks(type, from, rows, rank, count, scale, values, [&](auto... run) { read_bf16(type, run...); });
  turn_words<kPanelRows>(values, count * 2, count / 2, to);
  if (count % 2 == 0) return;
  for (int64_t r = 0; r < kPanelRows; ++r) {
    memcpy(to + (count - 1) * 32 + r * 2, values + r * count + count - 1, sizeof(uint16_t));
  }
}

}  // namespace

void pack_factor_rows(Source type, const void* source, int64_t rows, int64_t inputs, FactorScale scale, Storage storage,
                      unsigned char* to) {
  const auto* from = static_cast<const unsigned char*>(source);
  for (int64_t r = 0; r < rows; ++r) {
    unsigned char* row = to + r * factor_row_bytes(storage, inputs);
    for (int64_t k = 0; k < inputs; k += kPiece) {
      const int64_t count = inputs - k < kPiece ? inputs - k : kPiece;
      pack_row_piece(type, from + (r * inputs + k) * value_bytes(type), count, scale_of(scale, r), storage,
                     row + factor_row_bytes(storage, k));
    }
  }
}

void pack_factor_panels(Source type, const void* source, int64_t rows, int64_t rank, FactorScale scale, Storage storage,
                        unsigned char* to) {
  const auto* from = static_cast<const unsigned char*>(source);
  for (int64_t r = 0; r < rows; r += kPanelRows) {
    unsigned char* panel = to + r / kPanelRows * factor_panel_bytes(storage, rank);
    FactorScale here = scale;
    if (here.row_scale != nullptr) here.row_scale += r;
    for (int64_t k = 0; k < rank; k += kRankPiece) {
      const int64_t count = rank - k < kRankPiece ? rank - k : kRankPiece;
      pack_panel_piece(type, from + (r * rank + k) * value_bytes(type), rows - r < kPanelRows ? rows - r : kPanelRows,
                       rank, count, here, storage, panel + factor_panel_bytes(storage, k));
    }
  }
}

#if defined(EXPERT_NARROW)

namespace {

// Bytes of two lines that lie in one vector of each: in every 16 bytes, the first line's eight, then the second's.
struct TwoLines {
  Bytes low;
  Bytes high;
};

EXPERT_INLINE TwoLines two_lines(const unsigned char* lines, int v) {
  const unsigned char* from = lines + v * static_cast<int>(sizeof(Bytes));
  const Words first = load_words(from), second = load_words(from + 64);
  return {every_second<0>(first, second), every_second<1>(first, second)};
}

unsigned char largest_exponent(const unsigned char* lines, int64_t count) {
  Bytes most{};
  for (int64_t line = 0; line < count; line += 2) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const Bytes exponent = two_lines(lines + line * 64, v).high & 127;
      most = most > exponent ? most : exponent;
    }
  }
  unsigned char largest = 6;
  for (size_t i = 0; i < sizeof most; ++i) largest = most[i] > largest ? most[i] : largest;
  return largest;
}

// Lists the value `word` (0 to 31) of a line, which is too small; false where the head is full.
bool add_small_value(const unsigned char* lines, int64_t line, int64_t word, bool is_row, int64_t head, unsigned char* to) {
  if (to[1] == most_small(head)) return false;
  uint16_t small[2];
  __builtin_memcpy(&small[1], lines + line * 64 + word * 2, sizeof small[1]);
  const int64_t lane = word / 2;
  const int64_t half = word % 2;
  small[0] = static_cast<uint16_t>(is_row ? line * 32 + half * 16 + lane : (line * 2 + half) * kPanelRows + lane);
  __builtin_memcpy(to + 4 + 4 * to[1], small, sizeof small);
  ++to[1];
  return true;
}

}  // namespace

bool narrow_lines(const unsigned char* lines, int64_t count, bool is_row, int64_t head, unsigned char* to) {
  memset(to, 0, static_cast<size_t>(head));
  const unsigned char base = largest_exponent(lines, count);
  to[0] = base;
  unsigned char* unit = to + head;
  for (int64_t first = 0; first < count; first += kUnitLines, unit += kNarrowUnitBytes) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Bytes codes{};
      for (int half = 0; half < 2; ++half) {
        const int64_t line = first + half * 2;
        const TwoLines two = two_lines(lines + line * 64, v);
        const Bytes below = base - (two.high & 127);
        const Bytes is_small = reinterpret_cast<Bytes>(below > 6);
        const Bytes code = (is_small & 7) | (~is_small & below) | ((two.high >> 7) << 3);
        const Bytes low = two.low & ~is_small;
        __builtin_memcpy(unit + 64 + half * 64 + v * sizeof low, &low, sizeof low);
        codes |= half == 0 ? code : code << 4;
        const Bytes lost = is_small & (two.low | (two.high & 127));
        if (!any(lost)) continue;
        for (size_t i = 0; i < sizeof lost; ++i) {
          if (lost[i] == 0) continue;
          const auto word = static_cast<int64_t>(v * (sizeof lost / 2) + i / 16 * 8 + i % 8);
          if (!add_small_value(lines, line + static_cast<int64_t>(i / 8 % 2), word, is_row, head, to)) return false;
        }
      }
      __builtin_memcpy(unit + v * sizeof codes, &codes, sizeof codes);
    }
  }
  return true;
}

#endif

}  // namespace expert::kernels::EXPERT_ISA_FLOATS
