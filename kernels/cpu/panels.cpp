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

void pack_quantised_panel(Source type, const unsigned char* source, int64_t rows, int64_t inputs, Storage storage,
                          QuantiseWeights quantise, unsigned char* panel) {
  const int64_t groups = group_count(inputs);
  if (groups % 2 != 0) memset(panel + scales_at(storage, groups - 1), 0, 64);  // the missing group's scales as well
  alignas(64) float w[kGroup * kPanelRows];
  unsigned char codes[kGroup * kPanelRows];
  for (int64_t g = 0; g < groups; ++g) {
    uint16_t scales[kPanelRows];
    read_group(type, source, rows, inputs, g, w);
    quantise(storage, w, scales, codes);
    memcpy(panel + scales_at(storage, g), scales, sizeof scales);
    put_codes(storage, codes, panel + codes_at(storage, g));
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
