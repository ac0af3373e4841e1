#include "kernels/cpu/panels.h"

#include <string.h>

#include "kernels/cpu/turn_words.h"

namespace expert::kernels {

namespace {

constexpr int64_t kChunk = 256;  // inputs converted at a time; even

void read_floats(Source type, const unsigned char* from, int64_t count, float* to) {
  if (type == Source::f32) {
    memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  uint16_t bits[kChunk];
  memcpy(bits, from, static_cast<size_t>(count) * sizeof(uint16_t));
  for (int64_t i = 0; i < count; ++i) to[i] = type == Source::f16 ? float_from_f16(bits[i]) : float_from_bf16(bits[i]);
}

void read_bf16(Source type, const unsigned char* from, int64_t count, uint16_t* to) {
  if (type == Source::bf16) {
    memcpy(to, from, static_cast<size_t>(count) * sizeof(uint16_t));
    return;
  }
  float values[kChunk];
  read_floats(type, from, count, values);
  for (int64_t i = 0; i < count; ++i) to[i] = bf16_from_float(values[i]);
}

int64_t size_of(Source type) { return type == Source::f32 ? 4 : 2; }

// One panel of `rows` <= 16 rows.
void pack_panel(Source type, const unsigned char* source, int64_t rows, int64_t inputs, Storage storage,
                unsigned char* panel) {
  uint32_t words[kPanelRows][kChunk] = {};
  for (int64_t k = 0; k < inputs; k += kChunk) {
    const int64_t count = inputs - k < kChunk ? inputs - k : kChunk;
    for (int64_t r = 0; r < rows; ++r) {
      const unsigned char* from = source + (r * inputs + k) * size_of(type);
      if (storage == Storage::f32) {
        float values[kChunk];
        read_floats(type, from, count, values);
        memcpy(words[r], values, static_cast<size_t>(count) * sizeof(float));
      } else {
        uint16_t values[kChunk + 1];
        read_bf16(type, from, count, values);
        values[count] = 0;  // the partner of an odd last input
        memcpy(words[r], values, static_cast<size_t>((count + 1) / 2) * sizeof(uint32_t));
      }
    }
    const int64_t lines = storage == Storage::f32 ? count : (count + 1) / 2;
    turn_words<kPanelRows>(words, sizeof words[0], lines, panel + panel_bytes(storage, k));
  }
}

// One group of `rows` rows as [input][row], zero where there is none.
void read_group(Source type, const unsigned char* source, int64_t rows, int64_t inputs, int64_t group, float* w) {
  const int64_t first = group * kGroup;
  const int64_t count = inputs - first < kGroup ? inputs - first : kGroup;
  memset(w, 0, kGroup * kPanelRows * sizeof(float));
  for (int64_t r = 0; r < rows; ++r) {
    float values[kGroup];
    read_floats(type, source + (r * inputs + first) * size_of(type), count, values);
    for (int64_t k = 0; k < count; ++k) w[k * kPanelRows + r] = values[k];
  }
}

constexpr uint32_t kMostShift = 2;
constexpr uint32_t kInfinity = 0x7F80;
constexpr uint32_t kNotANumber = 0x7FC0;

// Of the bits of a scale without a zero point.
constexpr uint32_t mask_of(Storage storage) { return storage == Storage::int8 ? 0xFFFFU : kInt4ScaleMask; }
constexpr uint32_t reach_of(Storage storage, uint32_t shift) { return (storage == Storage::int8 ? 255U : 248U) << shift; }
constexpr uint32_t grain_of(Storage storage, uint32_t shift) { return (storage == Storage::int8 ? 1U : 8U) << shift; }

// The scales of an output, 16 apart.
struct ScaleRange {
  uint32_t least = 0xFFFFU;  // but for zeros
  uint32_t most = 0;         // 0: all are
};

ScaleRange range_of(Storage storage, const uint16_t* scales, int64_t groups) {
  ScaleRange range;
  for (int64_t g = 0; g < groups; ++g) {
    const uint32_t bits = scales[g * kPanelRows] & mask_of(storage);
    if (bits == 0) continue;
    range.least = bits < range.least ? bits : range.least;
    range.most = bits > range.most ? bits : range.most;
  }
  return range;
}

bool fits(Storage storage, const ScaleRange& range) {
  return range.most >= kInfinity || range.most == 0 || range.most - range.least <= reach_of(storage, 0);
}

uint32_t head_of(Storage storage, const ScaleRange& range, uint32_t shift) {
  if (range.most >= kInfinity) return kNotANumber << 16;
  if (range.most == 0) return 0;
  const uint32_t reach = reach_of(storage, shift);
  return (range.most - range.least > reach ? range.most - reach : range.least) << 16 | shift;
}

struct Rounding {
  uint32_t scale;
  float error;  // squared, in units of the scale
  unsigned char codes[kGroup];
};

// An output's weights, 16 apart, with this scale.
Rounding round_with(Storage storage, const float* w, uint32_t scale) {
  const float low = storage == Storage::int8 ? 1.0F : 0.0F;
  const float high = storage == Storage::int8 ? 255.0F : 15.0F;
  const float zero = zero_of(storage, scale);
  const float inverse = 1.0F / scale_of(storage, scale);
  Rounding rounding = {scale, 0, {}};
  for (int64_t k = 0; k < kGroup; ++k) {
    const float wanted = w[k * kPanelRows] * inverse + zero;
    const float inside = wanted < low ? low : wanted > high ? high : wanted;
    const float code = (inside + 0x1.8p23F) - 0x1.8p23F;  // half to even
    rounding.codes[k] = static_cast<unsigned char>(code);
    rounding.error += (wanted - code) * (wanted - code);
  }
  return rounding;
}

// With the scale that the word allows next to `scale`: the one with less error.
Rounding round_near(Storage storage, const float* w, uint32_t head, uint32_t scale) {
  const uint32_t base = head >> 16;
  const uint32_t grain = grain_of(storage, head & 15U);
  const uint32_t zero = scale & ~mask_of(storage) & 0xFFFFU;
  const uint32_t bits = scale & mask_of(storage);
  const uint32_t steps = bits > base ? (bits - base) / grain : 0U;
  const Rounding below = round_with(storage, w, (base + steps * grain) | zero);
  if (base + steps * grain >= bits) return below;
  const Rounding above = round_with(storage, w, (base + (steps + 1) * grain) | zero);
  const float ratio = scale_of(storage, above.scale) / scale_of(storage, below.scale);
  return above.error * ratio * ratio < below.error ? above : below;
}

// Squared, as part of the largest scale's square.
float error_near(Storage storage, const float* w, uint32_t head, uint32_t scale, uint32_t most) {
  if ((scale & mask_of(storage)) == 0) return 0;
  const Rounding rounding = round_near(storage, w, head, scale);
  const float unit = scale_of(storage, rounding.scale) / scale_of(storage, most);
  return rounding.error * unit * unit;
}

// One output of one group, quantised, so that its scale goes with the output's word.
void fit_scale(Storage storage, const float* w, uint32_t head, uint16_t& scale, unsigned char* codes) {
  const uint32_t base = head >> 16;
  const uint32_t bits = scale & mask_of(storage);
  if (base == kNotANumber) {
    scale = static_cast<uint16_t>(base);
  } else if (bits == 0) {  // zeros, by a zero point that is a whole number
    const bool eight = storage == Storage::int8;
    scale = static_cast<uint16_t>(base | (eight ? 0U : 1U));
    for (int64_t k = 0; k < kGroup; ++k) codes[k * kPanelRows] = eight ? 128 : 6;
  } else if (bits < base || (bits - base) % grain_of(storage, head & 15U) != 0) {
    const Rounding rounding = round_near(storage, w, head, scale);
    scale = static_cast<uint16_t>(rounding.scale);
    for (int64_t k = 0; k < kGroup; ++k) codes[k * kPanelRows] = rounding.codes[k];
  }
}

unsigned char scale_byte(Storage storage, uint32_t head, uint32_t scale) {
  const uint32_t above = ((scale & mask_of(storage)) - (head >> 16)) >> (head & 15U);
  return static_cast<unsigned char>(above | (scale & ~mask_of(storage)));
}

void pack_quantised_panel(Source type, const unsigned char* source, int64_t rows, int64_t inputs, Storage storage,
                          QuantiseWeights quantise, unsigned char* panel) {
  const int64_t groups = group_count(inputs);
  const QuantisedPanel quantised = quantise_panel(storage, inputs, quantise, [&](int64_t group, float* w) {
    read_group(type, source, rows, inputs, group, w);
  });
  memcpy(panel, quantised.heads, sizeof quantised.heads);
  // Of a unit cut short the missing groups' scales as well.
  memset(panel + scales_at(storage, (groups - 1) / kScaleGroups * kScaleGroups), 0, 64);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      panel[scales_at(storage, g) + r] =
          scale_byte(storage, quantised.heads[r], quantised.scales[static_cast<size_t>(g * kPanelRows + r)]);
    }
    put_codes(storage, quantised.codes.data() + g * kGroup * kPanelRows, panel + codes_at(storage, g));
  }
}

// The seven bits of exponent at the top of the window of eight that holds most of a row's values.
unsigned char base_of(const uint16_t (&count)[128]) {
  unsigned char best = 7;
  int held = 0;
  for (int h = 0; h < 8; ++h) held += count[h];
  int most = held;
  for (int top = 8; top < 128; ++top) {
    held += count[top] - count[top - 8];
    if (held <= most) continue;
    most = held;
    best = static_cast<unsigned char>(top);
  }
  return best;
}

void find_bases(const unsigned char* panel, int64_t inputs, unsigned char* bases) {
  uint16_t count[kPanelRows][128] = {};
  for (int64_t line = 0; line < inputs / 2; ++line) {
    for (int64_t value = 0; value < 32; ++value) ++count[value / 2][panel[line * 64 + value * 2 + 1] & 127];
  }
  for (int64_t row = 0; row < kPanelRows; ++row) bases[row] = base_of(count[row]);
}

}  // namespace

QuantisedPanel quantise_panel(Storage storage, int64_t inputs, QuantiseWeights quantise,
                              const std::function<void(int64_t group, float* w)>& read) {
  const int64_t groups = group_count(inputs);
  QuantisedPanel panel = {std::vector<uint16_t>(static_cast<size_t>(groups * kPanelRows)),
                          std::vector<unsigned char>(static_cast<size_t>(groups * kGroup * kPanelRows)), {}};
  alignas(64) float w[kGroup * kPanelRows];
  const auto scales = [&](int64_t group) { return panel.scales.data() + group * kPanelRows; };
  const auto codes = [&](int64_t group) { return panel.codes.data() + group * kGroup * kPanelRows; };
  for (int64_t g = 0; g < groups; ++g) {
    read(g, w);
    quantise(storage, w, scales(g), codes(g));
  }
  ScaleRange ranges[kPanelRows];
  bool all_fit = true;
  for (int64_t r = 0; r < kPanelRows; ++r) {
    ranges[r] = range_of(storage, panel.scales.data() + r, groups);
    panel.heads[r] = head_of(storage, ranges[r], 0);
    all_fit = all_fit && fits(storage, ranges[r]);
  }
  // Scales that lie far apart: coarser ones, or the least of them larger, whichever costs less.
  float errors[kPanelRows][kMostShift + 1] = {};
  for (int64_t g = 0; g < groups && !all_fit; ++g) {
    read(g, w);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      for (uint32_t shift = 0; shift <= kMostShift && !fits(storage, ranges[r]); ++shift) {
        errors[r][shift] += error_near(storage, w + r, head_of(storage, ranges[r], shift), scales(g)[r], ranges[r].most);
      }
    }
  }
  for (int64_t r = 0; r < kPanelRows; ++r) {
    uint32_t best = 0;
    for (uint32_t shift = 1; shift <= kMostShift; ++shift) best = errors[r][shift] < errors[r][best] ? shift : best;
    panel.heads[r] = head_of(storage, ranges[r], best);
  }
  for (int64_t g = 0; g < groups; ++g) {
    if (!all_fit) read(g, w);
    for (int64_t r = 0; r < kPanelRows; ++r) fit_scale(storage, w + r, panel.heads[r], scales(g)[r], codes(g) + r);
  }
  return panel;
}

bool narrow_panel(const unsigned char* panel, int64_t inputs, unsigned char* narrow) {
  memset(narrow, 0, static_cast<size_t>(narrow_head_bytes(inputs)));
  find_bases(panel, inputs, narrow);
  int64_t exceptions = 0;
  const auto add_exception = [&](uint32_t word) {
    memcpy(narrow + kNarrowBases + 4 * exceptions++, &word, sizeof word);
  };
  unsigned char* unit = narrow + narrow_head_bytes(inputs);
  for (int64_t first = 0; first < inputs / 2; first += 4, unit += kNarrowUnitBytes) {
    memset(unit, 0, 64);
    for (int64_t line = 0; line < 4; ++line) {
      const unsigned char* values = panel + (first + line) * 64;
      for (int64_t value = 0; value < 32; ++value) {
        const unsigned high = values[value * 2 + 1];
        const unsigned below = narrow[value / 2] - (high & 127U);
        const int64_t at = value / 8 * 16 + line % 2 * 8 + value % 8;
        unit[at] = static_cast<unsigned char>(unit[at] | ((high >> 7) << 3 | (below & 7U)) << (line / 2 * 4));
        unit[64 + line / 2 * 64 + at] = values[value * 2];
        if (below <= 7U) continue;
        if (exceptions == most_exceptions(inputs)) return false;
        add_exception(static_cast<uint32_t>(first + line) << 13 | static_cast<uint32_t>(value) << 8 | high);
      }
    }
  }
  add_exception(kNoException);
  return true;
}

void put_codes(Storage storage, const unsigned char* codes, unsigned char* lines) {
  const int64_t per_line = storage == Storage::int8 ? 4 : 8;
  for (int64_t k = 0; k < kGroup; k += per_line) {
    const unsigned char* from = codes + k * kPanelRows;
    unsigned char* line = lines + k / per_line * 64;
    for (int64_t r = 0; r < kPanelRows; ++r) {
      for (int64_t i = 0; i < 4; ++i) {
        const unsigned low = from[i * kPanelRows + r];
        const unsigned high = storage == Storage::int8 ? 0U : from[(i + 4) * kPanelRows + r];
        line[r * 4 + i] = static_cast<unsigned char>(low | high << 4);
      }
    }
  }
}

void pack_quantised_panels(Source type, const void* source, int64_t rows, int64_t inputs, Storage storage,
                           QuantiseWeights quantise, unsigned char* panels) {
  const auto* from = static_cast<const unsigned char*>(source);
  for (int64_t r = 0; r < rows; r += kPanelRows) {
    pack_quantised_panel(type, from + r * inputs * size_of(type), rows - r < kPanelRows ? rows - r : kPanelRows, inputs,
                         storage, quantise, panels + r / kPanelRows * panel_bytes(storage, inputs));
  }
}

void pack_panels(Source type, const void* source, int64_t rows, int64_t inputs, Storage storage,
                 unsigned char* panels) {
  const auto* from = static_cast<const unsigned char*>(source);
  for (int64_t r = 0; r < rows; r += kPanelRows) {
    pack_panel(type, from + r * inputs * size_of(type), rows - r < kPanelRows ? rows - r : kPanelRows, inputs, storage,
               panels + r / kPanelRows * panel_bytes(storage, inputs));
  }
}

}  // namespace expert::kernels
