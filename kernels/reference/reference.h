// Every operation once more, as plain loops over row-major data with FP64 sums: the definition the fast kernels are
// tested against. Not fast, not threaded.
#pragma once

#include <stdint.h>

#include "kernels/formats.h"

namespace expert::kernels::reference {

// y[r, n] += sum_k x[r, k] W[n, k]; W [outputs, inputs].
void add_product(const double* x, int64_t rows, int64_t inputs, const float* w, int64_t outputs, double weight,
                 double* y);
// CpuKernels::quantise_weights, and the weights [32][16] its scales and codes stand for (exact in FP32).
void quantise_weights(Storage storage, const float* w, uint16_t* scales, unsigned char* codes);
void dequantise_weights(Storage storage, const uint16_t* scales, const unsigned char* codes, float* w);
// What the activations of one row count as where they meet weights stored so: as they are (F32), rounded to BF16 as well
// (BF16), groups of 32 in steps of max |x| / 127 (quantised).
void round_activations(Storage storage, const float* x, int64_t inputs, double* out);
// out = x / sqrt(mean(x^2) + eps) * weight per row; out may be x.
void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t cols, float* out);
// Half-split rotation of the first 2 * half values of x.
void rotate(float* x, const float* cos, const float* sin, int64_t half);
// A vector as the INT8 KV cache keeps it (kernels/kv_format.h): to = scale * whole numbers.
void round_int8(const float* x, int64_t count, float* to);
// One query against `tokens` keys and values [tokens, head_dim]: out = softmax(scale q K^T) V.
void attend(const float* q, const float* keys, const float* values, int64_t tokens, int64_t head_dim, float scale,
            float* out);
// out = gate / (1 + exp(-gate)) * up; out may be gate.
void swiglu(const float* gate, const float* up, int64_t count, float* out);

}  // namespace expert::kernels::reference
