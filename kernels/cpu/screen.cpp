#include "kernels/cpu/screen.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/panels.h"

namespace expert::kernels {

namespace {

constexpr float kZero = 7.5F;
constexpr uint16_t kZeroBits = 4;  // of a scale: kInt4FirstZero + 4 * kInt4ZeroStep
static_assert(kInt4FirstZero + kInt4ZeroStep * kZeroBits == kZero);

// sqrt(ln(2 / delta) / 6) for delta = 2^-60.
constexpr double kConfidence = 2.6547;
// Of |weight| |x|: more than what summing up in FP32 can be off, in the copy's products and in the matrix's together.
constexpr double kSummation = 0x1p-13;
constexpr double kSlack = 1.001;  // the margin is computed in floating point too

// What one group of 16 rows is rounded with.
struct Steps {
  float scale[kPanelRows];
  float inverse[kPanelRows];  // 0: the group counts as zeros
  uint16_t bits[kPanelRows];  // of the scale
};

// The random number of an input: 24 bits of Chris Wellons' "lowbias32", every bit of which depends on every bit of k.
inline float dither(int64_t k) {
  uint32_t x = static_cast<uint32_t>(k) * 0x9E3779B9U ^ 0x5CA1AB1EU;
  x = (x ^ (x >> 16)) * 0x7FEB352DU;
  x = (x ^ (x >> 15)) * 0x846CA68BU;
  return static_cast<float>(static_cast<int32_t>((x ^ (x >> 16)) >> 8)) * 0x1p-24F;
}

// The least scale of each row whose fifteen steps hold all of its weights.
void choose_steps(const float* w, Steps& steps) {
  float most[kPanelRows] = {};
  for (int64_t k = 0; k < kGroup; ++k) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const float value = float_from_bits(bits_of(w[k * kPanelRows + r]) & 0x7FFFFFFFU);
      most[r] = value > most[r] ? value : most[r];
    }
  }
  for (int64_t r = 0; r < kPanelRows; ++r) {
    const bool counts = most[r] > kLeastQuantised;
    const uint32_t wanted = (bits_of(most[r] * (1.00001F / kZero)) + 0xFFFFU) >> 16;
    const uint32_t lower = (wanted & ~7U) | kZeroBits;
    const uint32_t bits = counts ? (lower < wanted ? lower + 8U : lower) : 0U;
    steps.bits[r] = static_cast<uint16_t>(bits);
    steps.scale[r] = float_from_bits(bits << 16);
    steps.inverse[r] = counts ? 1.0F / steps.scale[r] : 0.0F;
  }
}

void round_dithered(const float* w, const Steps& steps, int64_t first, unsigned char* codes) {
  for (int64_t k = 0; k < kGroup; ++k) {
    const float offset = kZero + dither(first + k);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const auto code = static_cast<int32_t>(w[k * kPanelRows + r] * steps.inverse[r] + offset);
      codes[k * kPanelRows + r] = static_cast<unsigned char>(code < 0 ? 0 : code > 15 ? 15 : code);
    }
  }
}

// The group of `count` activations as INT4 and INT8 products read it: its codes, and their scale.
float round_group(const float* x, int64_t count, float* codes) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = float_from_bits(bits_of(x[i]) & 0x7FFFFFFFU);
    most = value <= most ? most : value;  // not a comparison that a NaN escapes
  }
  const bool counts = most > kLeastQuantised;
  const float inverse = counts ? 127.0F / most : 0.0F;
  for (int64_t i = 0; i < count; ++i) codes[i] = (x[i] * inverse + 0x1.8p23F) - 0x1.8p23F;  // half to even
  return counts ? most / 127.0F : most * 0.0F;
}

// One group as [input][row], zero where there is none.
void turn_group(const float* w, int64_t rows, int64_t inputs, int64_t first, float* group) {
  const int64_t count = inputs - first < kGroup ? inputs - first : kGroup;
  memset(group, 0, kGroup * kPanelRows * sizeof(float));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < count; ++k) group[k * kPanelRows + r] = w[r * inputs + first + k];
  }
}

// Four lanes: what compilers make of them is vectors.
struct Largest {
  float most[4];
  int32_t nan[4];
};

inline void take_panel(const float* y, Largest& largest) {
  for (int i = 0; i < 4; ++i) largest.most[i] = y[i];
  for (int64_t k = 4; k < kPanelRows; k += 4) {
    for (int i = 0; i < 4; ++i) largest.most[i] = y[k + i] > largest.most[i] ? y[k + i] : largest.most[i];
  }
  for (int64_t k = 0; k < kPanelRows; k += 4) {
    for (int i = 0; i < 4; ++i) largest.nan[i] |= static_cast<int32_t>(y[k + i] != y[k + i]);
  }
}

}  // namespace

void pack_screen_panel(const float* w, int64_t rows, int64_t inputs, unsigned char* panel, ScreenBound& bound) {
  double squares[kPanelRows] = {};
  double fourths[kPanelRows] = {};
  const int64_t groups = group_count(inputs);
  if (groups % 2 != 0) memset(panel + scales_at(Storage::int4, groups - 1), 0, 64);
  alignas(64) float group[kGroup * kPanelRows];
  unsigned char codes[kGroup * kPanelRows];
  for (int64_t g = 0; g < groups; ++g) {
    Steps steps;
    turn_group(w, rows, inputs, g * kGroup, group);
    choose_steps(group, steps);
    round_dithered(group, steps, g * kGroup, codes);
    memcpy(panel + scales_at(Storage::int4, g), steps.bits, sizeof steps.bits);
    put_codes(Storage::int4, codes, panel + codes_at(Storage::int4, g));
    for (int64_t r = 0; r < kPanelRows; ++r) {
      float sum = 0;
      for (int64_t k = 0; k < kGroup; ++k) sum += group[k * kPanelRows + r] * group[k * kPanelRows + r];
      squares[r] += static_cast<double>(sum);
      const double square = static_cast<double>(steps.scale[r]) * static_cast<double>(steps.scale[r]);
      fourths[r] += square * square;
    }
  }
  double square = 0;
  double fourth = 0;
  for (int64_t r = 0; r < kPanelRows; ++r) {
    square = squares[r] > square ? squares[r] : square;
    fourth = fourths[r] > fourth ? fourths[r] : fourth;
  }
  bound = {static_cast<float>(sqrt(sqrt(fourth))), static_cast<float>(sqrt(square))};
}

// A product with the copy is, per group, scale * scale of x * (sum of code * code of x - sum of (7 + u) * code of x).
ScreenMargin prepare_screened_row(Storage storage, const float* x, int64_t inputs, unsigned char* prepared) {
  const int64_t groups = group_count(inputs);
  unsigned char* corrections = prepared + groups * (kGroupCodeBytes + static_cast<int64_t>(sizeof(float)));
  double fourths = 0;
  double squares = 0;
  double differences = 0;  // between x as the matrix meets it and as the copy does
  for (int64_t g = 0; g < groups; ++g) {
    const float* from = x + g * kGroup;
    const int64_t count = inputs - g * kGroup < kGroup ? inputs - g * kGroup : kGroup;
    float codes[kGroup];
    const float scale = round_group(from, count, codes);
    float offsets = 0;
    float square = 0;
    for (int64_t i = 0; i < count; ++i) {
      offsets += (kZero - 0.5F + dither(g * kGroup + i)) * codes[i];
      square += codes[i] * codes[i];
    }
    const float correction = -offsets / kZero;
    memcpy(corrections + g * static_cast<int64_t>(sizeof correction), &correction, sizeof correction);
    const double length = static_cast<double>(square) * static_cast<double>(scale) * static_cast<double>(scale);
    squares += length;
    fourths += length * length;
    for (int64_t i = 0; !is_quantised(storage) && i < count; ++i) {
      const float used = storage == Storage::bf16 ? float_from_bf16(bf16_from_float(from[i])) : from[i];
      const double difference = static_cast<double>(used) - static_cast<double>(scale * codes[i]);
      differences += difference * difference;
    }
  }
  const double off = sqrt(differences);
  const double length = sqrt(squares) + off;
  // What weights below the least that is quantised, of which the copy knows nothing, can add to a product.
  const double least = static_cast<double>(kLeastQuantised) * sqrt(static_cast<double>(inputs)) * length;
  return {static_cast<float>(kSlack * kConfidence * sqrt(sqrt(fourths))),
          static_cast<float>(kSlack * (off + kSummation * length)), static_cast<float>(least)};
}

bool panel_maxima(const float* y, int64_t outputs, int64_t begin, int64_t end, float* maxima) {
  Largest largest = {};
  for (int64_t p = begin; p < end; ++p) {
    const float* from = y + p * kPanelRows;
    const int64_t count = outputs - p * kPanelRows;
    float last[kPanelRows];
    if (count < kPanelRows) {
      for (int64_t i = 0; i < kPanelRows; ++i) last[i] = from[i < count ? i : 0];
      from = last;
    }
    take_panel(from, largest);
    const float left = largest.most[0] > largest.most[1] ? largest.most[0] : largest.most[1];
    const float right = largest.most[2] > largest.most[3] ? largest.most[2] : largest.most[3];
    maxima[p] = left > right ? left : right;
  }
  return (largest.nan[0] | largest.nan[1] | largest.nan[2] | largest.nan[3]) == 0;
}

}  // namespace expert::kernels
