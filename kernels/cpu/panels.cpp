#include "kernels/cpu/panels.h"

#include <string.h>

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

// lines[line][row] <- words[row][line]
void interleave(const uint32_t (&words)[kPanelRows][kChunk], int64_t lines, unsigned char* to) {
  for (int64_t line = 0; line < lines; ++line) {
    uint32_t lane[kPanelRows];
    for (int64_t r = 0; r < kPanelRows; ++r) lane[r] = words[r][line];
    memcpy(to + line * 64, lane, sizeof lane);
  }
}

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
    interleave(words, storage == Storage::f32 ? count : (count + 1) / 2, panel + panel_bytes(storage, k));
  }
}

}  // namespace

void pack_panels(Source type, const void* source, int64_t rows, int64_t inputs, Storage storage,
                 unsigned char* panels) {
  const auto* from = static_cast<const unsigned char*>(source);
  for (int64_t r = 0; r < rows; r += kPanelRows) {
    pack_panel(type, from + r * inputs * size_of(type), rows - r < kPanelRows ? rows - r : kPanelRows, inputs, storage,
               panels + r / kPanelRows * panel_bytes(storage, inputs));
  }
}

}  // namespace expert::kernels
