// Row norms, activations and sums.
#include "kernels/cpu/simd.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

// Four independent sums keep the chains short; the layout depends on cols only.
float sum_of_squares(const float* x, int64_t cols) {
  Floats sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= cols; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Floats v = load(x + i + j * kLanes);
      sum[j] = fma(v, v, sum[j]);
    }
  }
  float rest = 0;
  for (; i < cols; ++i) rest += x[i] * x[i];
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

void norm_row(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  const float mean = sum_of_squares(x, cols) / static_cast<float>(cols);
  const float inverse = 1.0F / __builtin_sqrtf(mean + eps);
  int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) store(out + i, load(x + i) * splat(inverse) * load(weight + i));
  for (; i < cols; ++i) out[i] = x[i] * inverse * weight[i];
}

EXPERT_INLINE Floats swiglu_of(Floats gate, Floats up) { return gate / (splat(1.0F) + exp(-gate)) * up; }

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Floats a = load(x + i);
    const Floats b = load(x + half + i);
    store(x + i, a * load(cos + i) - b * load(sin + i));
    store(x + half + i, b * load(cos + i) + a * load(sin + i));
  }
  for (; i < half; ++i) {
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * cos[i] - b * sin[i];
    x[half + i] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t cols, float* out) {
  for (int64_t r = 0; r < rows; ++r) norm_row(x + r * cols, weight, eps, cols, out + r * cols);
}

void norm_rope(const NormRopeArgs& args) {
  for (int64_t h = 0; h < args.heads; ++h) {
    float* x = args.x + h * args.head_dim;
    if (args.norm != nullptr) norm_row(x, args.norm, args.eps, args.head_dim, x);
    rotate(x, args.cos, args.sin, args.half);
  }
}

// The rest of a row goes through the same vector code, so that an element's value does not depend on its place.
void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, swiglu_of(load(gate + i), load(up + i)));
  if (i == count) return;
  float g[kLanes] = {};
  float u[kLanes] = {};
  for (int64_t j = i; j < count; ++j) {
    g[j - i] = gate[j];
    u[j - i] = up[j];
  }
  store(g, swiglu_of(load(g), load(u)));
  for (int64_t j = i; j < count; ++j) out[j] = g[j - i];
}

void add(const float* x, const float* y, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] + y[i];
}

void multiply(const float* x, const float* y, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * y[i];
}

void exponential(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    float lane[kLanes];
    store(lane, exp(splat(x[i])));
    out[i] = lane[0];
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
