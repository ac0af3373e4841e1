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

namespace {

float rounded(float x) { return (x + 0x1.8p23F) - 0x1.8p23F; }  // half to even

// The weights of one output over a group, and the scale that has been best so far.
struct ScaleSearch {
  const float* w;  // kPanelRows apart
  float magnitude;
  float low;
  float high;
  float error = INFINITY;
  uint32_t bits = 0;
  float zero = 0;

  float wanted(int64_t k, float inverse, float at_zero) const { return w[k * kPanelRows] * inverse + at_zero; }
  float clamped(float code) const { return rounded(std::fmin(std::fmax(code, low), high)); }

  void attempt(uint32_t scale_bits, float at_zero) {
    const float scale = float_from_bits(scale_bits);
    const float inverse = 1.0F / scale;
    float sum = 0;
    for (int64_t k = 0; k < kGroup; ++k) {
      const float code = wanted(k, inverse, at_zero);
      const float off = code - clamped(code);
      sum += off * off;
    }
    const float unit = scale / magnitude;
    const float total = sum * (unit * unit);
    if (!(total < error)) return;
    error = total;
    bits = scale_bits;
    zero = at_zero;
  }
};

void search_int8(ScaleSearch& search) {
  const uint32_t start = bits_of(search.magnitude * (1.0F / 127.0F)) >> 16;
  for (uint32_t i = 0; i < kInt8ScaleTries; ++i) search.attempt((start + i - kInt8ScalesBelow) << 16, kInt8Zero);
}

void search_int4(ScaleSearch& search, float least, float most) {
  for (uint32_t z = 0; z < kInt4Zeros; ++z) {
    const float zero = kInt4FirstZero + kInt4ZeroStep * static_cast<float>(z);
    const uint32_t start = bits_of(std::fmax(most * (1.0F / (15.0F - zero)), least * (-1.0F / zero))) >> 19;
    for (uint32_t i = 0; i < kInt4ScaleTries; ++i) {
      search.attempt((start + i - kInt4ScalesBelow) << 19, zero);
    }
  }
}

void quantise_output(Storage storage, const float* w, uint16_t& scale, unsigned char* codes) {
  const bool eight = storage == Storage::int8;
  float least = 0;
  float most = 0;
  bool finite = true;
  for (int64_t k = 0; k < kGroup; ++k) {
    least = std::fmin(least, w[k * kPanelRows]);
    most = std::fmax(most, w[k * kPanelRows]);
    finite = finite && std::isfinite(w[k * kPanelRows]);
  }
  ScaleSearch search{w, std::fmax(most, -least), eight ? 1.0F : 0.0F, eight ? 255.0F : 15.0F};
  search.zero = eight ? kInt8Zero : kInt4FirstZero;
  const bool counts = finite && search.magnitude > kLeastQuantised;
  if (counts && eight) search_int8(search);
  if (counts && !eight) search_int4(search, least, most);
  const uint32_t zero_bits = eight ? 0U : static_cast<uint32_t>((search.zero - kInt4FirstZero) / kInt4ZeroStep);
  scale = finite ? static_cast<uint16_t>(search.bits >> 16 | zero_bits) : uint16_t{0x7FC0};
  const float inverse = counts ? 1.0F / float_from_bits(search.bits) : 0.0F;
  for (int64_t k = 0; k < kGroup; ++k) {
    const float code = counts ? search.wanted(k, inverse, search.zero) : search.zero;
    codes[k * kPanelRows] = static_cast<unsigned char>(search.clamped(code));
  }
}

}  // namespace

void quantise_weights(Storage storage, const float* w, uint16_t* scales, unsigned char* codes) {
  for (int64_t r = 0; r < kPanelRows; ++r) quantise_output(storage, w + r, scales[r], codes + r);
}

void dequantise_weights(Storage storage, const uint16_t* scales, const unsigned char* codes, float* w) {
  for (int64_t k = 0; k < kGroup; ++k) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const float code = static_cast<float>(codes[k * kPanelRows + r]);
      w[k * kPanelRows + r] = scale_of(storage, scales[r]) * (code - zero_of(storage, scales[r]));
    }
  }
}

void round_activations(Storage storage, const float* x, int64_t inputs, double* out) {
  if (!is_quantised(storage)) {
    for (int64_t i = 0; i < inputs; ++i) {
      out[i] = static_cast<double>(storage == Storage::bf16 ? float_from_bf16(bf16_from_float(x[i])) : x[i]);
    }
    return;
  }
  for (int64_t first = 0; first < inputs; first += kGroup) {
    const int64_t end = first + kGroup < inputs ? first + kGroup : inputs;
    float most = 0;
    bool finite = true;
    for (int64_t i = first; i < end; ++i) {
      most = std::fmax(most, std::fabs(x[i]));
      finite = finite && std::isfinite(x[i]);
    }
    const bool counts = finite && most > 0x1p-100F;
    const float inverse = counts ? 127.0F / most : 0.0F;
    for (int64_t i = first; i < end; ++i) {
      const double code = counts ? static_cast<double>(rounded(x[i] * inverse)) : 0.0;
      out[i] = finite ? code * static_cast<double>(most / 127.0F) : NAN;
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
