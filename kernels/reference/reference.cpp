#include "kernels/reference/reference.h"

#include <cmath>
#include <vector>

#include "kernels/kv_format.h"

namespace expert::kernels::reference {

void add_product(const double* x, int64_t rows, int64_t inputs, const float* w, int64_t outputs, double weight,
                 double* y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < outputs; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < inputs; ++k) sum += x[r * inputs + k] * static_cast<double>(w[n * inputs + k]);
      y[r * outputs + n] += weight * sum;
    }
  }
}

void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t cols, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < cols; ++i)
      squares += static_cast<double>(x[r * cols + i]) * static_cast<double>(x[r * cols + i]);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(cols) + static_cast<double>(eps));
    for (int64_t i = 0; i < cols; ++i) {
      out[r * cols + i] =
          static_cast<float>(static_cast<double>(x[r * cols + i]) * inverse * static_cast<double>(weight[i]));
    }
  }
}

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const double a = static_cast<double>(x[i]);
    const double b = static_cast<double>(x[half + i]);
    const double c = static_cast<double>(cos[i]);
    const double s = static_cast<double>(sin[i]);
    x[i] = static_cast<float>(a * c - b * s);
    x[half + i] = static_cast<float>(b * c + a * s);
  }
}

void round_int8(const float* x, int64_t count, float* to) {
  std::vector<int8_t> numbers(static_cast<size_t>(count));
  const float scale = quantise_int8(x, count, numbers.data());
  for (int64_t i = 0; i < count; ++i) to[i] = scale * static_cast<float>(numbers[static_cast<size_t>(i)]);
}

void attend(const float* q, const float* keys, const float* values, int64_t tokens, int64_t head_dim, float scale,
            float* out) {
  std::vector<double> p(static_cast<size_t>(tokens));
  double most = -INFINITY;
  for (int64_t t = 0; t < tokens; ++t) {
    double score = 0;
    for (int64_t d = 0; d < head_dim; ++d) {
      score += static_cast<double>(q[d]) * static_cast<double>(keys[t * head_dim + d]);
    }
    p[static_cast<size_t>(t)] = score * static_cast<double>(scale);
    most = std::fmax(most, p[static_cast<size_t>(t)]);
  }
  double sum = 0;
  for (double& value : p) {
    value = std::exp(value - most);
    sum += value;
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    double total = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      total += p[static_cast<size_t>(t)] * static_cast<double>(values[t * head_dim + d]);
    }
    out[d] = static_cast<float>(total / sum);
  }
}

void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const double g = static_cast<double>(gate[i]);
    out[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * static_cast<double>(up[i]));
  }
}

}  // namespace expert::kernels::reference
