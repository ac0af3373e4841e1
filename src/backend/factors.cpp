// How a backend without a layout of its own for factors packs them: as weights.
#include <cstring>

#include "backend/backend.h"
#include "core/error.h"
#include "kernels/formats.h"

namespace expert {

namespace {

float factor_value(DType dtype, const std::byte* from) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return dtype == DType::bf16 ? kernels::float_from_bf16(bits) : kernels::float_from_f16(bits);
}

// The same rows as F32, scaled.
MatrixSource scaled_source(const FactorSource& factor) {
  MatrixSource source;
  source.rows = factor.values.rows;
  source.cols = factor.values.cols;
  source.read = [&factor](int64_t first, int64_t count, void* destination) {
    const int64_t cols = factor.values.cols;
    const size_t size = size_of(factor.values.dtype);
    std::vector<std::byte> raw(static_cast<size_t>(count * cols) * size);
    factor.values.read(first, count, raw.data());
    auto* to = static_cast<float*>(destination);
    for (int64_t i = 0; i < count * cols; ++i) {
      float value = factor_value(factor.values.dtype, raw.data() + static_cast<size_t>(i) * size);
      if (factor.row_scale.empty()) {
        value *= factor.scale;
      } else {
        value *= factor.scale * factor.row_scale[static_cast<size_t>(first + i / cols)];
      }
      to[i] = value;
    }
  };
  return source;
}

}  // namespace

std::vector<MatrixPtr> Backend::pack_factors(std::span<const FactorSource> sources, WeightFormat format) {
  std::vector<MatrixPtr> packed;
  packed.reserve(sources.size());
  const WeightFormat own = format == WeightFormat::f32 ? format : WeightFormat::bf16;
  for (const FactorSource& source : sources) packed.push_back(pack(scaled_source(source), own));
  return packed;
}

}  // namespace expert
