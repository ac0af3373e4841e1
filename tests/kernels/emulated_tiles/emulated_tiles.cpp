#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulated_tiles/emulated_tiles.h"
#include "kernels/formats.h"

namespace expert::emulated_tiles {

namespace {

constexpr int kTiles = 8;
constexpr int kMostRows = 16;
constexpr int kMostBytes = 64;

struct Tile {
  int rows = 0;
  int row_bytes = 0;
  unsigned char bytes[kMostRows][kMostBytes] = {};
};

struct Unit {
  bool configured = false;
  Tile tiles[kTiles];
};

thread_local Unit unit;

[[noreturn]] void refuse(const char* what) {
  fprintf(stderr, "emulated tile unit: %s\n", what);
  abort();
}

Tile& tile_of(int index) {
  if (!unit.configured) refuse("used without a configuration");
  if (index < 0 || index >= kTiles || unit.tiles[index].rows == 0) refuse("a register that the configuration leaves out");
  return unit.tiles[index];
}

// What lies behind the rows and bytes of a register is zero after every instruction that writes it.
void clear(Tile& tile) { memset(tile.bytes, 0, sizeof tile.bytes); }

template <typename Value>
Value value_at(const Tile& tile, int row, int column) {
  Value value;
  memcpy(&value, tile.bytes[row] + column * static_cast<int>(sizeof value), sizeof value);
  return value;
}

// sums [M, N] of words, a [M, K] of words, b [K, N] of words, each word so and so many inputs.
template <typename Sum, typename Add>
void multiply(int sums, int first, int second, const Add& add) {
  Tile& to = tile_of(sums);
  const Tile& a = tile_of(first);
  const Tile& b = tile_of(second);
  if (to.rows != a.rows || to.row_bytes != b.row_bytes || a.row_bytes / 4 != b.rows) refuse("shapes that do not fit");
  Tile result = to;
  clear(result);
  for (int m = 0; m < to.rows; ++m) {
    for (int n = 0; n < to.row_bytes / 4; ++n) {
      const Sum sum = add(value_at<Sum>(to, m, n), a, b, m, n);
      memcpy(result.bytes[m] + n * 4, &sum, sizeof sum);
    }
  }
  to = result;
}

float pair_value(const Tile& tile, int row, int column) {
  const float value = kernels::float_from_bf16(value_at<uint16_t>(tile, row, column));
  return fpclassify(value) == FP_SUBNORMAL ? 0.0F : value;
}

}  // namespace

void configure(const void* config) {
  unsigned char bytes[64];
  memcpy(bytes, config, sizeof bytes);
  if (bytes[0] != 1 || bytes[1] != 0) refuse("a palette other than 1, or a start row");
  unit = Unit{};
  unit.configured = true;
  for (int t = 0; t < kTiles; ++t) {
    uint16_t row_bytes;
    memcpy(&row_bytes, bytes + 16 + 2 * t, sizeof row_bytes);
    unit.tiles[t].rows = bytes[48 + t];
    unit.tiles[t].row_bytes = row_bytes;
    if (unit.tiles[t].rows > kMostRows || row_bytes > kMostBytes || row_bytes % 4 != 0) refuse("a register too large");
  }
}

void release() { unit = Unit{}; }

void zero(int tile) { clear(tile_of(tile)); }

void load(int tile, const void* from, size_t stride) {
  Tile& to = tile_of(tile);
  clear(to);
  for (int r = 0; r < to.rows; ++r) {
    memcpy(to.bytes[r], static_cast<const unsigned char*>(from) + static_cast<size_t>(r) * stride,
           static_cast<size_t>(to.row_bytes));
  }
}

void store(int tile, void* to, size_t stride) {
  const Tile& from = tile_of(tile);
  for (int r = 0; r < from.rows; ++r) {
    memcpy(static_cast<unsigned char*>(to) + static_cast<size_t>(r) * stride, from.bytes[r],
           static_cast<size_t>(from.row_bytes));
  }
}

void multiply_pairs(int sums, int a, int b) {
  multiply<float>(sums, a, b, [](float sum, const Tile& x, const Tile& w, int m, int n) {
    float low = 0;
    float high = 0;
    for (int k = 0; k < w.rows; ++k) {
      low = fmaf(pair_value(x, m, 2 * k), pair_value(w, k, 2 * n), low);
      high = fmaf(pair_value(x, m, 2 * k + 1), pair_value(w, k, 2 * n + 1), high);
    }
    return sum + (low + high);
  });
}

void multiply_bytes(int sums, int a, int b) {
  multiply<int32_t>(sums, a, b, [](int32_t sum, const Tile& x, const Tile& w, int m, int n) {
    for (int k = 0; k < w.rows * 4; ++k) sum += value_at<int8_t>(x, m, k) * value_at<int8_t>(w, k / 4, 4 * n + k % 4);
    return sum;
  });
}

}  // namespace expert::emulated_tiles
