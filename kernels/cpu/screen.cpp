#include "kernels/cpu/screen.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_kernels.h"

namespace expert::kernels {

namespace {

constexpr float kHalfRange = 3.5F;  // steps on either side of zero
constexpr float kCentre = 3.0F;     // what a code of zero lacks, less the random number
constexpr float kLargestScale = 1.9375F;  // that a byte means, 255
static_assert(kScreenScaleBits + (255U << kScreenScaleShift) == 0x3FF80000U);  // of that one

// Of |weight| |x|: more than what summing up in FP32 can be off, in the copy's products and in the matrix's together.
constexpr double kSummation = 0x1p-13;

// What the rows of a panel are rounded with.
struct Rows {
  float scale[kPanelRows];  // 0: the row counts as zeros
};

// And one group of it.
struct Steps {
  float scale[kPanelRows];
  float inverse[kPanelRows];
  unsigned char byte[kPanelRows];  // of the scale
};

// The random number of an input: 24 bits of Chris Wellons' "lowbias32", every bit of which depends on every bit of k.
inline float dither(int64_t k) {
  uint32_t x = static_cast<uint32_t>(k) * 0x9E3779B9U ^ 0x5CA1AB1EU;
  x = (x ^ (x >> 16)) * 0x7FEB352DU;
  x = (x ^ (x >> 15)) * 0x846CA68BU;
  return static_cast<float>(static_cast<int32_t>((x ^ (x >> 16)) >> 8)) * 0x1p-24F;
}

inline float magnitude(float value) { return float_from_bits(bits_of(value) & 0x7FFFFFFFU); }

// With the largest scale that a group may have, seven steps hold any weight of the row.
Rows choose_scales(const float* w, int64_t rows, int64_t inputs) {
  Rows chosen = {};
  for (int64_t r = 0; r < rows; ++r) {
    float most[4] = {};
    for (int64_t k = 0; k < inputs; ++k) {
      const float value = magnitude(w[r * inputs + k]);
      most[k % 4] = value > most[k % 4] ? value : most[k % 4];
    }
    for (const float value : most) most[0] = value > most[0] ? value : most[0];
    if (most[0] > kLeastQuantised) chosen.scale[r] = most[0] * (1.0001F / (kHalfRange * kLargestScale));
  }
  return chosen;
}

// The least scale of each row whose seven steps hold all of the group's weights.
void choose_steps(const float* w, const Rows& rows, Steps& steps) {
  float most[kPanelRows] = {};
  for (int64_t k = 0; k < kGroup; ++k) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const float value = magnitude(w[k * kPanelRows + r]);
      most[r] = value > most[r] ? value : most[r];
    }
  }
  for (int64_t r = 0; r < kPanelRows; ++r) {
    const bool counts = rows.scale[r] > 0;
    const float wanted = counts ? most[r] * (1.00001F / kHalfRange) / rows.scale[r] : 0.0F;
    const uint32_t bits = bits_of(wanted);
    const uint32_t above = bits > kScreenScaleBits ? bits - kScreenScaleBits : 0U;
    const uint32_t byte = (above + (1U << kScreenScaleShift) - 1U) >> kScreenScaleShift;
    steps.byte[r] = static_cast<unsigned char>(byte < 255U ? byte : 255U);
    steps.scale[r] = rows.scale[r] * float_from_bits(kScreenScaleBits + (uint32_t{steps.byte[r]} << kScreenScaleShift));
    steps.inverse[r] = counts ? 2.0F / steps.scale[r] : 0.0F;
  }
}

// Codes of four bits, the fourth the lowest.
void round_dithered(const float* w, const Steps& steps, int64_t first, unsigned char* codes) {
  for (int64_t k = 0; k < kGroup; ++k) {
    const float offset = 2.0F * (kHalfRange + dither(first + k));
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const float code = w[k * kPanelRows + r] * steps.inverse[r] + offset;
      const float inside = code > 0.0F ? code : 0.0F;
      codes[k * kPanelRows + r] = static_cast<unsigned char>(inside < 15.0F ? inside : 15.0F);
    }
  }
}

void put_group(const unsigned char* codes, unsigned char* lines) {
  memset(lines, 0, kScreenGroupBytes);
  for (int64_t k = 0; k < kGroup; ++k) {
    const int64_t piece = k / 8;
    const int64_t half = k / 4 % 2 * 4;
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const unsigned code = codes[k * kPanelRows + r] / 2U;
      const int64_t at = r * 4 + k % 4;
      unsigned char& low = lines[piece / 2 * 64 + at];
      unsigned char& high = lines[128 + at];
      low = static_cast<unsigned char>(low | (code & 3U) << (half + piece % 2 * 2));
      high = static_cast<unsigned char>(high | (code >> 2) << (half + piece));
    }
  }
}

void put_fourth(const unsigned char* codes, const Steps& steps, int64_t group, int64_t groups, int64_t row_bytes,
                unsigned char* fourth) {
  for (int64_t r = 0; r < kPanelRows; ++r) {
    uint32_t bits = 0;
    for (int64_t k = 0; k < kGroup; ++k) bits |= (codes[k * kPanelRows + r] & 1U) << k;
    unsigned char* row = fourth + r * row_bytes;
    row[4 + group] = steps.byte[r];
    memcpy(row + 4 + groups + group * 4, &bits, sizeof bits);
  }
}

// The group of `count` activations as INT4 and INT8 products read it: its codes, and their scale.
float round_group(const float* x, int64_t count, float* codes) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = magnitude(x[i]);
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

void pack_screen_panel(const float* w, int64_t rows, int64_t inputs, unsigned char* panel, unsigned char* fourth,
                       ScreenBound& bound) {
  double squares[kPanelRows] = {};
  double fourths[kPanelRows] = {};
  const int64_t groups = group_count(inputs);
  const int64_t row_bytes = screen_row_bytes(inputs);
  const Rows chosen = choose_scales(w, rows, inputs);
  memcpy(panel, chosen.scale, sizeof chosen.scale);
  memset(fourth, 0, static_cast<size_t>(kPanelRows * row_bytes));
  for (int64_t r = 0; r < kPanelRows; ++r) memcpy(fourth + r * row_bytes, &chosen.scale[r], sizeof(float));
  // Of a unit cut short the missing groups' scales as well.
  memset(panel + screen_scales_at((groups - 1) / kScaleGroups * kScaleGroups), 0, 64);
  alignas(64) float group[kGroup * kPanelRows];
  unsigned char codes[kGroup * kPanelRows];
  for (int64_t g = 0; g < groups; ++g) {
    Steps steps;
    turn_group(w, rows, inputs, g * kGroup, group);
    choose_steps(group, chosen, steps);
    round_dithered(group, steps, g * kGroup, codes);
    memcpy(panel + screen_scales_at(g), steps.byte, sizeof steps.byte);
    put_group(codes, panel + screen_codes_at(g));
    put_fourth(codes, steps, g, groups, row_bytes, fourth);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      float sum = 0;
      for (int64_t k = 0; k < kGroup; ++k) sum += group[k * kPanelRows + r] * group[k * kPanelRows + r];
      squares[r] += static_cast<double>(sum);
      const double square = static_cast<double>(steps.scale[r]) * static_cast<double>(steps.scale[r]);
      fourths[r] += square * square;
    }
  }
  double square = 0;
  double spread = 0;
  for (int64_t r = 0; r < kPanelRows; ++r) {
    square = squares[r] > square ? squares[r] : square;
    spread = fourths[r] > spread ? fourths[r] : spread;
  }
  bound = {static_cast<float>(sqrt(sqrt(spread))), static_cast<float>(sqrt(square))};
}

ScreenMargin prepare_screened_row(QuantiseRow quantise, Storage storage, const float* x, int64_t inputs,
                                  unsigned char* prepared, int32_t* fourth) {
  quantise(Storage::int4, x, inputs, {0, inputs}, prepared);
  const int64_t groups = group_count(inputs);
  unsigned char* corrections = prepared + groups * (kGroupCodeBytes + static_cast<int64_t>(sizeof(float)));
  const int64_t padded = fourth_groups(inputs);
  auto* scales = reinterpret_cast<float*>(fourth + groups * kGroup);
  float& largest_scale = scales[3 * padded];
  memset(scales, 0, static_cast<size_t>(3 * padded + 1) * sizeof(float));
  auto* bytes = reinterpret_cast<signed char*>(fourth + fourth_bytes_at(inputs));
  memset(bytes, 0, static_cast<size_t>(padded * kGroup));
  double fourths = 0;
  double squares = 0;
  double differences = 0;  // between x as the matrix meets it and as the copy does
  for (int64_t g = 0; g < groups; ++g) {
    const float* from = x + g * kGroup;
    const int64_t count = inputs - g * kGroup < kGroup ? inputs - g * kGroup : kGroup;
    float codes[kGroup] = {};
    const float scale = round_group(from, count, codes);
    float offsets = 0;
    float sum = 0;
    float square = 0;
    for (int64_t i = 0; i < count; ++i) {
      offsets += (kCentre + dither(g * kGroup + i)) * codes[i];
      sum += codes[i];
      square += codes[i] * codes[i];
    }
    const bool finite = square - square == 0;  // otherwise the margin is a NaN
    for (int64_t i = 0; i < kGroup; ++i) {
      const auto code = static_cast<signed char>(finite ? codes[i] : 0.0F);
      fourth[g * kGroup + i] = code;
      bytes[g * kGroup + i] = code;
    }
    scales[g] = scale;
    largest_scale = scale > largest_scale ? scale : largest_scale;
    scales[padded + g] = sum;
    scales[2 * padded + g] = square;
    const float correction = -offsets;
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
  for (int64_t g = 0; g < groups && largest_scale > 0; ++g) scales[g] /= largest_scale;
  const double off = sqrt(differences);
  const double length = sqrt(squares) + off;
  // What weights below the least that is quantised, of which the copy knows nothing, can add to a product.
  const double least = static_cast<double>(kLeastQuantised) * sqrt(static_cast<double>(inputs)) * length;
  return {static_cast<float>(kScreenSlack * kScreenConfidence * sqrt(sqrt(fourths))),
          static_cast<float>(kScreenSlack * (off + kSummation * length)), static_cast<float>(least)};
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
