#include "io/magnitude.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace expert {
namespace {

// Without its sign the pattern of a float grows with its magnitude, so signed integers compare them; lanes of a fixed
// number let every compiler use vectors.
template <typename Bits>
Bits largest_pattern(const std::byte* values, size_t count) {
  constexpr size_t kLanesAtOnce = 64 / sizeof(Bits);
  constexpr Bits kMagnitude = std::numeric_limits<Bits>::max();
  Bits largest[kLanesAtOnce] = {};
  size_t i = 0;
  for (; i + kLanesAtOnce <= count; i += kLanesAtOnce) {
    Bits bits[kLanesAtOnce];
    std::memcpy(bits, values + i * sizeof(Bits), sizeof bits);
    for (size_t l = 0; l < kLanesAtOnce; ++l) {
      const Bits magnitude = static_cast<Bits>(bits[l] & kMagnitude);
      largest[l] = largest[l] > magnitude ? largest[l] : magnitude;
    }
  }
  for (; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, values + i * sizeof(Bits), sizeof bits);
    largest[0] = std::max(largest[0], static_cast<Bits>(bits & kMagnitude));
  }
  return *std::max_element(largest, largest + kLanesAtOnce);
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float half_to_float(uint32_t bits) {
  const uint32_t exponent = bits >> 10;
  const auto mantissa = static_cast<float>(bits & 1023U);
  return exponent == 0 ? std::ldexp(mantissa, -24)
                       : std::ldexp(1.0F + mantissa / 1024.0F, static_cast<int>(exponent) - 15);
}

}  // namespace

float largest_magnitude(DType dtype, const void* values, size_t count) {
  constexpr float kNotFinite = std::numeric_limits<float>::infinity();
  const auto* bytes = static_cast<const std::byte*>(values);
  switch (dtype) {
    case DType::f32: {
      const auto bits = static_cast<uint32_t>(largest_pattern<int32_t>(bytes, count));
      return bits >= 0x7F800000U ? kNotFinite : float_of(bits);
    }
    case DType::bf16: {
      const auto bits = static_cast<uint32_t>(largest_pattern<int16_t>(bytes, count));
      return bits >= 0x7F80U ? kNotFinite : float_of(bits << 16);
    }
    case DType::f16: {
      const auto bits = static_cast<uint32_t>(largest_pattern<int16_t>(bytes, count));
      return bits >= 0x7C00U ? kNotFinite : half_to_float(bits);
    }
    case DType::i32:
    case DType::i8:
      break;
  }
  fail(ErrorCode::internal, "{} values have no magnitude", name_of(dtype));
}

}  // namespace expert
