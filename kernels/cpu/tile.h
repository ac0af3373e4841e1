// The inner product tile all matrix work is made of: R rows of activations times P panels, every output one chain of
// fused multiply-adds over ascending inputs. Attention uses it too: a block of keys is a panel of 16 outputs (tokens).
#pragma once

#include "kernels/cpu/simd.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

template <int R, int P>
struct Tile {
  Floats sum[R][P * kPanelVectors];
};

template <int R, int P>
EXPERT_INLINE void clear(Tile<R, P>& tile) {
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kPanelVectors; ++v) tile.sum[r][v] = Floats{};
  }
}

struct F32Panel {
  static constexpr Storage kStorage = Storage::f32;

  // sum += x[r, 0..inputs) * W over lines starting at line[p].
  template <int R, int P>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs) {
    for (int64_t k = 0; k < inputs; ++k) {
      for (int v = 0; v < P * kPanelVectors; ++v) {
        const unsigned char* p =
            line[v / kPanelVectors] + k * 64 + v % kPanelVectors * static_cast<int>(sizeof(Floats));
        const Floats w = reinterpret_cast<Floats>(load_words(p));
        for (int r = 0; r < R; ++r) tile.sum[r][v] = fma(splat(x[r * x_stride + k]), w, tile.sum[r][v]);
      }
    }
  }
};

struct Bf16Panel {
  static constexpr Storage kStorage = Storage::bf16;

  template <int R, int P>
  EXPERT_INLINE void multiply(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                              int64_t inputs) {
    const int64_t pairs = inputs / 2;
    for (int64_t j = 0; j < pairs; ++j) {
      low<R, P>(tile, line, x + 2 * j, x_stride, j);
      high<R, P>(tile, line, x + 2 * j + 1, x_stride, j);
    }
    if (inputs % 2 != 0) low<R, P>(tile, line, x + inputs - 1, x_stride, pairs);
  }

 private:
  EXPERT_INLINE Words words(const unsigned char* line, int v) {
    return load_words(line + v % kPanelVectors * static_cast<int>(sizeof(Words)));
  }

  template <int R, int P>
  EXPERT_INLINE void low(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                         int64_t j) {
    for (int v = 0; v < P * kPanelVectors; ++v) {
      const Floats w = reinterpret_cast<Floats>(words(line[v / kPanelVectors] + j * 64, v) << 16);
      for (int r = 0; r < R; ++r) tile.sum[r][v] = fma(splat(x[r * x_stride]), w, tile.sum[r][v]);
    }
  }

  template <int R, int P>
  EXPERT_INLINE void high(Tile<R, P>& tile, const unsigned char* const (&line)[P], const float* x, int64_t x_stride,
                          int64_t j) {
    for (int v = 0; v < P * kPanelVectors; ++v) {
      const Floats w = reinterpret_cast<Floats>(words(line[v / kPanelVectors] + j * 64, v) & 0xFFFF0000U);
      for (int r = 0; r < R; ++r) tile.sum[r][v] = fma(splat(x[r * x_stride]), w, tile.sum[r][v]);
    }
  }
};

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
