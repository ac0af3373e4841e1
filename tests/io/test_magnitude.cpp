#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "io/bytes.h"
#include "io/magnitude.h"

using namespace expert;

namespace {

// Starts one byte into its memory, as tensors of a file may.
template <typename T>
float unaligned_magnitude(DType dtype, const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T) + 1);
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  return largest_magnitude(dtype, bytes.data() + 1, values.size());
}

}  // namespace

TEST_CASE("the largest magnitude, wherever it stands and whatever its sign") {
  for (const size_t count : {1U, 15U, 16U, 17U, 31U, 32U, 33U, 100U}) {
    for (size_t at = 0; at < count; ++at) {
      std::vector<float> floats(count, 0.5F);
      std::vector<uint16_t> bf16(count, 0x3F00);  // 0.5
      std::vector<uint16_t> f16(count, 0x3800);   // 0.5
      floats[at] = -3.0F;
      bf16[at] = 0xC040;
      f16[at] = 0xC200;
      CHECK(unaligned_magnitude(DType::f32, floats) == 3.0F);
      CHECK(unaligned_magnitude(DType::bf16, bf16) == 3.0F);
      CHECK(unaligned_magnitude(DType::f16, f16) == 3.0F);
      for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
        floats[at] = bad;
        CHECK(std::isinf(unaligned_magnitude(DType::f32, floats)));
      }
      for (const uint16_t bad : std::initializer_list<uint16_t>{0x7F80, 0xFF80, 0x7FC0, 0xFFFF}) {
        bf16[at] = bad;
        CHECK(std::isinf(unaligned_magnitude(DType::bf16, bf16)));
      }
      for (const uint16_t bad : std::initializer_list<uint16_t>{0x7C00, 0xFC00, 0x7C01, 0xFFFF}) {
        f16[at] = bad;
        CHECK(std::isinf(unaligned_magnitude(DType::f16, f16)));
      }
    }
  }
  CHECK(largest_magnitude(DType::f32, nullptr, 0) == 0.0F);
  CHECK(unaligned_magnitude(DType::f16, std::vector<uint16_t>{0x0001}) == std::ldexp(1.0F, -24));
  CHECK(unaligned_magnitude(DType::f16, std::vector<uint16_t>{0x7BFF}) == 65504.0F);
  CHECK(unaligned_magnitude(DType::f32, std::vector<float>{std::numeric_limits<float>::max()}) ==
        std::numeric_limits<float>::max());
}

TEST_CASE("large bytes behave as small ones") {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{2} << 20) + 1, size_t{7} << 20}) {
    Bytes bytes(size);
    CHECK(bytes.size() == size);
    for (const size_t at : {size_t{0}, size / 2}) {
      if (at < size) CHECK(bytes[at] == std::byte{0});
    }
    const Bytes copy = bytes;
    bytes.append(std::array{std::byte{1}});
    CHECK(copy.size() == size);
    CHECK(bytes[size] == std::byte{1});
  }
}
