#include "kernels/cpu/screen.h"

#include <math.h>
#include <string.h>

#include <bit>

#include "kernels/cpu/cpu_kernels.h"

namespace expert::kernels {

namespace {

// A code's step, in deviations of a row's coordinates. At 0.996 two bits are at their best (|e| of 0.3667 |w|, four bits 0.142);
// here they are off by 1 % more, and four bits by 14 % less.
constexpr double kStep = 1.1;

// Of |weight| |x|: more than what turning and summing up in FP32 can be off, in the copy's products and in the matrix's together.
constexpr double kSummation = 0x1p-13;
constexpr double kLeast = 0x1p-110;  // far above what floats that are too small to be precise can be off

// 1 or -1: Chris Wellons' "lowbias32", every bit of which depends on every bit of k.
float random_sign(uint32_t k) {
  uint32_t x = k * 0x9E3779B9U ^ 0x5CA1AB1EU;
  x = (x ^ (x >> 16)) * 0x7FEB352DU;
  x = (x ^ (x >> 15)) * 0x846CA68BU;
  return ((x ^ (x >> 16)) & 0x8000U) == 0 ? 1.0F : -1.0F;
}

// Lanes: what compilers make of them is vectors.
constexpr int kWays = 8;

// The largest magnitude, by the bits, where infinity and NaN come out on top of every number.
float largest_of(const float* values, int64_t count) {
  const auto magnitude = [&](int64_t k) { return static_cast<int32_t>(bits_of(values[k]) & 0x7FFFFFFFU); };
  int32_t most[kWays] = {};
  int64_t k = 0;
  for (; k + kWays <= count; k += kWays) {
    for (int i = 0; i < kWays; ++i) most[i] = magnitude(k + i) > most[i] ? magnitude(k + i) : most[i];
  }
  for (; k < count; ++k) most[0] = magnitude(k) > most[0] ? magnitude(k) : most[0];
  for (int i = 1; i < kWays; ++i) most[0] = most[i] > most[0] ? most[i] : most[0];
  return float_from_bits(static_cast<uint32_t>(most[0]));
}

// sum of f(k) over k < count.
template <class F>
float sum_of(int64_t count, const F& f) {
  float sum[kWays] = {};
  int64_t k = 0;
  for (; k + kWays <= count; k += kWays) {
    for (int i = 0; i < kWays; ++i) sum[i] += f(k + i);
  }
  for (; k < count; ++k) sum[0] += f(k);
  for (int i = 1; i < kWays; ++i) sum[0] += sum[i];
  return sum[0];
}

// Times a matrix of 1 and -1.
void hadamard(float* v, int64_t count) {
  for (int64_t i = 0; i + 4 <= count; i += 4) {
    const float a = v[i] + v[i + 1];
    const float b = v[i] - v[i + 1];
    const float c = v[i + 2] + v[i + 3];
    const float d = v[i + 2] - v[i + 3];
    v[i] = a + c;
    v[i + 1] = b + d;
    v[i + 2] = a - c;
    v[i + 3] = b - d;
  }
  if (count == 2) {
    const float a = v[0];
    v[0] = a + v[1];
    v[1] = a - v[1];
  }
  for (int64_t half = 4; half < count; half *= 2) {
    for (int64_t i = 0; i < count; i += 2 * half) {
      float* upper = v + i + half;
      for (int64_t k = 0; k < half; ++k) {
        const float a = v[i + k];
        const float b = upper[k];
        v[i + k] = a + b;
        upper[k] = a - b;
      }
    }
  }
}

int64_t rounds_of(int64_t inputs) { return std::has_single_bit(static_cast<uint64_t>(inputs)) ? 3 : 4; }

// The directions at right angles to a row.
double freedom(int64_t inputs) { return inputs > 2 ? static_cast<double>(inputs - 1) : 1.0; }

// 2^n such that values up to `most` become less than 1.
double below_one(float most) {
  int exponent = 0;
  frexp(static_cast<double>(most), &exponent);
  return ldexp(1.0, -exponent);
}

// What is known of a turned row's roundings z = f q: f such that z - w' is at right angles to w', and its length.
struct Fit {
  double factor;
  double spread;
};

// `dot`: q w'; `squares`: q q; `square`: w' w'.
Fit fit(double dot, double squares, double square) {
  const double factor = square / dot;
  const double rest = factor * factor * squares - square;
  return {factor, sqrt(rest > 0 ? rest : 0.0)};
}

struct PackedRow {
  float factor;
  FineRow fine;
  ScreenBound bound;
};

// A row that counts as zeros: its products are off by no more than its length times that of x.
PackedRow nothing(double norm, int64_t inputs) {
  const auto spread = static_cast<float>(norm * sqrt(freedom(inputs)) / kScreenConfidence);
  const ScreenBound bound = {spread, static_cast<float>(norm)};
  return {0.0F, {0.0F, 0.0F, bound}, bound};
}

double length_of(const float* values, int64_t count) {
  double square = 0;
  for (int64_t k = 0; k < count; ++k) square += static_cast<double>(values[k]) * static_cast<double>(values[k]);
  return sqrt(square);
}

// `row`: scratch with the weights in it. `codes`: of four bits.
PackedRow round_row(const ScreenRotation& rotation, int64_t inputs, float* row, unsigned char* codes) {
  const float most = largest_of(row, inputs);
  if (!(most > kLeastQuantised)) {
    memset(codes, 0, static_cast<size_t>(inputs));
    return nothing(length_of(row, inputs), inputs);
  }
  const double unit = below_one(most);
  for (int64_t k = 0; k < inputs; ++k) row[k] = static_cast<float>(static_cast<double>(row[k]) * unit);
  rotation.apply(row);
  const double norm = length_of(row, inputs);
  const double step = kStep * norm / sqrt(static_cast<double>(inputs));
  const auto inverse = static_cast<float>(4.0 / step);
  double coarse_dot = 0;
  double fine_dot = 0;
  int64_t coarse_squares = 0;  // of twice the codes less the centre, which are whole
  int64_t fine_squares = 0;
  for (int64_t k = 0; k < inputs; ++k) {
    const float at = row[k] * inverse + 8.0F;
    const float inside = at > 0.0F ? at : 0.0F;
    const auto code = static_cast<int32_t>(inside < 15.0F ? inside : 15.0F);
    codes[k] = static_cast<unsigned char>(code);
    const int32_t fine = 2 * code - 15;
    const int32_t coarse = 2 * (code >> 2) - 3;
    fine_squares += fine * fine;
    coarse_squares += coarse * coarse;
    fine_dot += static_cast<double>(static_cast<float>(fine) * row[k]);
    coarse_dot += static_cast<double>(static_cast<float>(coarse) * row[k]);
  }
  const double square = norm * norm;
  const Fit coarse = fit(coarse_dot / 2, static_cast<double>(coarse_squares) / 4, square);
  const Fit fine = fit(fine_dot / 2, static_cast<double>(fine_squares) / 4, square);
  // (code - 7.5) f = 4 f (c - 1.5) + f (b - 1.5)
  return {static_cast<float>(coarse.factor / unit),
          {static_cast<float>(4 * fine.factor / coarse.factor), static_cast<float>(fine.factor / unit),
           {static_cast<float>(fine.spread / unit), static_cast<float>(norm / unit)}},
          {static_cast<float>(coarse.spread / unit), static_cast<float>(norm / unit)}};
}

void put_codes(const unsigned char* codes, int64_t inputs, int64_t lane, unsigned char* panel) {
  for (int64_t k = 0; k < inputs; ++k) {
    unsigned char& byte = panel[64 + k / kScreenLine * 64 + lane * 4 + k % 4];
    byte = static_cast<unsigned char>(byte | (codes[k] / 4U) << (k % kScreenLine / 4 * 2));
  }
}

void put_finer(const unsigned char* codes, int64_t inputs, unsigned char* lines) {
  for (int64_t k = 0; k < inputs; ++k) {
    unsigned char& byte = lines[k / kFineLine * 64 + k % 64];
    byte = static_cast<unsigned char>(byte | (codes[k] & 3U) << (k % kFineLine / 64 * 2));
  }
}

// Activations as a product of a matrix stored so meets them, times a power of two.
void meet(Storage storage, const float* x, int64_t inputs, float unit, float* to) {
  if (!is_quantised(storage)) {
    for (int64_t k = 0; k < inputs; ++k) {
      to[k] = (storage == Storage::bf16 ? float_from_bf16(bf16_from_float(x[k])) : x[k]) * unit;
    }
    return;
  }
  for (int64_t first = 0; first < inputs; first += kGroup) {
    const int64_t count = inputs - first < kGroup ? inputs - first : kGroup;
    const float most = largest_of(x + first, count);
    const float inverse = most > kLeastQuantised ? 127.0F / most : 0.0F;
    const float scale = most / 127.0F * unit;
    for (int64_t k = first; k < first + count; ++k) {
      to[k] = ((x[k] * inverse + 0x1.8p23F) - 0x1.8p23F) * scale;  // half to even
    }
  }
}

// Codes of a turned row: whole numbers, as floats.
float round_codes(const float* row, int64_t inputs, float* codes) {
  const float most = largest_of(row, inputs);
  const float inverse = most > 0 ? 127.0F / most : 0.0F;
  for (int64_t k = 0; k < inputs; ++k) codes[k] = (row[k] * inverse + 0x1.8p23F) - 0x1.8p23F;
  return most / 127.0F;
}

void put_row(const float* codes, int64_t inputs, unsigned char* prepared) {
  const int64_t padded = screened_inputs(inputs);
  auto* bytes = reinterpret_cast<signed char*>(prepared + 64);
  auto* pairs = reinterpret_cast<int16_t*>(prepared + screened_pairs_at(inputs));
  for (int64_t k = 0; k < inputs; ++k) bytes[k] = static_cast<signed char>(codes[k]);
  for (int64_t k = inputs; k < padded; ++k) bytes[k] = 0;
  for (int64_t first = 0; first < padded; first += 64) {
    for (int64_t i = 0; i < 64; i += 4) {
      int16_t* to = pairs + first + i / 2;
      to[0] = bytes[first + i];
      to[1] = bytes[first + i + 2];
      to[32] = bytes[first + i + 1];
      to[33] = bytes[first + i + 3];
    }
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

ScreenRotation::ScreenRotation(int64_t inputs)
    : inputs_(inputs), signs_(static_cast<size_t>(rounds_of(inputs) * inputs)) {
  const int64_t count = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(inputs)));
  const auto scale = static_cast<float>(1.0 / sqrt(static_cast<double>(count)));
  for (int64_t round = 0; round < rounds_of(inputs); ++round) {
    const int64_t first = round % 2 == 0 ? 0 : inputs - count;
    for (int64_t k = 0; k < inputs; ++k) {
      const float sign = random_sign(static_cast<uint32_t>(round * kMostScreened + k));
      signs_[static_cast<size_t>(round * inputs + k)] = k >= first && k < first + count ? sign * scale : sign;
    }
  }
}

void ScreenRotation::apply(float* row) const {
  const int64_t count = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(inputs_)));
  for (int64_t round = 0; round < rounds_of(inputs_); ++round) {
    const float* signs = signs_.data() + round * inputs_;
    for (int64_t k = 0; k < inputs_; ++k) row[k] *= signs[k];
    hadamard(row + (round % 2 == 0 ? 0 : inputs_ - count), count);
  }
}

void pack_screen_panel(const ScreenRotation& rotation, const float* w, int64_t rows, int64_t inputs, const ScreenPanel& to) {
  std::vector<float> row(static_cast<size_t>(inputs));
  std::vector<unsigned char> codes(static_cast<size_t>(inputs));
  memset(to.codes, 0, static_cast<size_t>(screen_panel_bytes(inputs)));
  memset(to.fine, 0, static_cast<size_t>(kPanelRows * fine_row_bytes(inputs)));
  for (int64_t r = 0; r < kPanelRows; ++r) to.rows[r] = {};
  *to.bound = {};
  for (int64_t r = 0; r < rows; ++r) {
    memcpy(row.data(), w + r * inputs, static_cast<size_t>(inputs) * sizeof(float));
    const PackedRow packed = round_row(rotation, inputs, row.data(), codes.data());
    memcpy(to.codes + r * static_cast<int64_t>(sizeof(float)), &packed.factor, sizeof(float));
    put_codes(codes.data(), inputs, r, to.codes);
    put_finer(codes.data(), inputs, to.fine + r * fine_row_bytes(inputs));
    to.rows[r] = packed.fine;
    to.bound->spread = packed.bound.spread > to.bound->spread ? packed.bound.spread : to.bound->spread;
    to.bound->norm = packed.bound.norm > to.bound->norm ? packed.bound.norm : to.bound->norm;
  }
}

ScreenMargin prepare_screened_row(const ScreenRotation& rotation, Storage storage, const float* x, int64_t inputs,
                                  unsigned char* prepared) {
  float most = largest_of(x, inputs);
  if (storage == Storage::bf16) most = float_from_bf16(bf16_from_float(most));
  std::vector<float> row(static_cast<size_t>(inputs));
  std::vector<float> codes(static_cast<size_t>(inputs));
  ScreenedRow head = {};
  if (!(most - most == 0)) {
    head.scale = most - most;  // a NaN
    memset(prepared, 0, static_cast<size_t>(screened_row_bytes(inputs)));
    memcpy(prepared, &head, sizeof head);
    return {head.scale, head.scale, head.scale};
  }
  const double unit = most > kLeastQuantised ? below_one(most) : 1.0;
  meet(storage, x, inputs, static_cast<float>(unit), row.data());
  rotation.apply(row.data());
  const float scale = round_codes(row.data(), inputs, codes.data());
  put_row(codes.data(), inputs, prepared);
  const float* const h = row.data();
  const float* const c = codes.data();
  head = {static_cast<float>(static_cast<double>(scale) / unit), -1.5F * sum_of(inputs, [&](int64_t k) { return c[k]; })};
  memcpy(prepared, &head, sizeof head);
  const auto d = [&](int64_t k) { return h[k] - scale * c[k]; };
  const double length = sqrt(static_cast<double>(sum_of(inputs, [&](int64_t k) { return h[k] * h[k]; })));
  const double off = sqrt(static_cast<double>(sum_of(inputs, [&](int64_t k) { return d(k) * d(k); })));
  const double along = fabs(static_cast<double>(sum_of(inputs, [&](int64_t k) { return d(k) * h[k]; })));
  const double confidence = kScreenConfidence / sqrt(freedom(inputs));
  const double spread = confidence * length + off;
  const double norm = confidence * off + (length > 0 ? along / length : 0.0) + kSummation * length;
  return {static_cast<float>(kScreenSlack * spread / unit), static_cast<float>(kScreenSlack * norm / unit),
          static_cast<float>(kLeast)};
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
