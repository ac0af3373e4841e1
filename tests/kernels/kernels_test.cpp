// Every kernel of every instruction set this machine has, against plain FP64 loops with a tolerance computed from the
// data, and against itself bit by bit.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/panels.h"
#include "kernels/kv_format.h"
#include "kernels/reference/reference.h"
#include "tests/kernels/all_kernels.h"
#include "tests/support/random_floats.h"

using namespace expert::kernels;
using expert::test::random_floats;

namespace {

constexpr float kEps = std::numeric_limits<float>::epsilon();

struct Packed {
  std::vector<unsigned char> panels;
  std::vector<float> values;  // what the panels hold, row-major
};

Packed pack(const std::vector<float>& w, int64_t outputs, int64_t inputs, Storage storage) {
  Packed packed{
      std::vector<unsigned char>(static_cast<size_t>(panel_count(outputs) * panel_bytes(storage, inputs)), 0xFF), w};
  pack_panels(Source::f32, w.data(), outputs, inputs, storage, packed.panels.data());
  if (storage == Storage::bf16) {
    for (float& value : packed.values) value = float_from_bf16(bf16_from_float(value));
  }
  return packed;
}

bool same_bits(const float* a, const float* b, size_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

std::vector<float> scratch() { return std::vector<float>(static_cast<size_t>(kGemmScratch)); }

// Rows of x as the kernels read them, exactly as long as they are, so that whoever reads behind them is seen.
std::vector<unsigned char> prepare(const CpuKernels& k, Storage storage, const float* x, int64_t x_stride, int64_t inputs,
                                   int64_t rows) {
  const int64_t bytes = k.prepared_row_bytes(storage, inputs);
  std::vector<unsigned char> prepared(static_cast<size_t>(rows * bytes), 0xFF);
  for (int64_t r = 0; bytes != 0 && r < rows; ++r) k.prepare_row(storage, x + r * x_stride, inputs, {0, inputs}, prepared.data() + r * bytes);
  return prepared;
}

GemmArgs gemm_args(const Packed& w, int64_t outputs, int64_t inputs, const std::vector<float>& x, int64_t rows,
                   std::vector<float>& y, float* work) {
  GemmArgs args{};
  args.panels = w.panels.data();
  args.outputs = outputs;
  args.inputs = inputs;
  args.panel_end = panel_count(outputs);
  args.x = x.data();
  args.x_stride = inputs;
  args.rows = rows;
  args.y = y.data();
  args.y_stride = outputs;
  args.scale = 1.0F;
  args.scratch = work;
  return args;
}

}  // namespace

TEST_CASE("BF16 rounds to nearest even, keeps infinities and NaN") {
  CHECK(bf16_from_float(1.0F) == 0x3F80);
  CHECK(bf16_from_float(float_from_bits(0x3F808000)) == 0x3F80);  // tie, even below
  CHECK(bf16_from_float(float_from_bits(0x3F818000)) == 0x3F82);  // tie, even above
  CHECK(bf16_from_float(float_from_bits(0x3F808001)) == 0x3F81);
  CHECK(bf16_from_float(-0.0F) == 0x8000);
  CHECK(bf16_from_float(INFINITY) == 0x7F80);
  CHECK(bf16_from_float(std::numeric_limits<float>::max()) == 0x7F80);
  CHECK(std::isnan(float_from_bf16(bf16_from_float(float_from_bits(0x7F800001)))));  // its payload lies in the cut half
  CHECK(std::isnan(float_from_bf16(bf16_from_float(float_from_bits(0xFFFFFFFF)))));
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = float_from_bf16(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) REQUIRE(bf16_from_float(value) == bits);
  }
}

TEST_CASE("all F16 values convert exactly") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>((bits >> 10) & 31U);
    const auto mantissa = static_cast<double>(bits & 1023U);
    const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
    const float value = float_from_f16(static_cast<uint16_t>(bits));
    if (exponent == 31) {
      REQUIRE((mantissa == 0 ? std::isinf(value) : std::isnan(value)));
      REQUIRE(std::signbit(value) == (sign < 0));
      continue;
    }
    const double expected = exponent == 0 ? mantissa * 0x1p-24 : (1 + mantissa / 1024) * std::exp2(exponent - 15);
    REQUIRE(static_cast<double>(value) == sign * expected);
    REQUIRE(std::signbit(value) == (sign < 0));
  }
}

TEST_CASE("packing and reading back rows gives the values, the padding is zero") {
  for (const auto& shape :
       {std::pair<int64_t, int64_t>{1, 1}, {16, 2}, {17, 3}, {33, 255}, {5, 256}, {20, 257}, {16, 700}}) {
    const auto rows = shape.first;
    const auto inputs = shape.second;
    const std::vector<float> w = random_floats(rows * inputs, 3);
    std::vector<uint16_t> half(w.size());  // F16 source: random bits without infinities and NaN
    std::vector<uint16_t> bf16(w.size());
    std::mt19937 random(9);
    for (size_t i = 0; i < w.size(); ++i) {
      half[i] = static_cast<uint16_t>(random() & 0xBBFFU);
      bf16[i] = bf16_from_float(w[i]);
    }
    for (const Storage storage : {Storage::f32, Storage::bf16}) {
      std::vector<unsigned char> panels(static_cast<size_t>(panel_count(rows) * panel_bytes(storage, inputs)), 0xFF);
      std::vector<float> row(static_cast<size_t>(inputs));
      const auto check = [&](Source type, const void* source, const auto& value) {
        std::fill(panels.begin(), panels.end(), static_cast<unsigned char>(0xFF));
        pack_panels(type, source, rows, inputs, storage, panels.data());
        for (int64_t r = 0; r < panel_count(rows) * kPanelRows; ++r) {
          all_kernels()[0]->unpack_row(storage, panels.data(), inputs, r, row.data());
          for (int64_t k = 0; k < inputs; ++k) {
            float expected = r < rows ? value(static_cast<size_t>(r * inputs + k)) : 0.0F;
            if (storage == Storage::bf16) expected = float_from_bf16(bf16_from_float(expected));
            REQUIRE(row[static_cast<size_t>(k)] == expected);
          }
        }
      };
      check(Source::f32, w.data(), [&](size_t i) { return w[i]; });
      check(Source::f16, half.data(), [&](size_t i) { return float_from_f16(half[i]); });
      check(Source::bf16, bf16.data(), [&](size_t i) { return float_from_bf16(bf16[i]); });
    }
  }
}

TEST_CASE("exp is within 2 ulp, and right at its ends") {
  for (const CpuKernels* k : all_kernels()) {
    std::vector<float> x;
    for (float v = -87.0F; v < 88.7F; v += 0.00731F) x.push_back(v);
    for (float v = 1e-30F; v < 1.0F; v *= 1.7F) x.insert(x.end(), {v, -v});
    std::vector<float> y(x.size());
    k->exp(x.data(), static_cast<int64_t>(x.size()), y.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double truth = std::exp(static_cast<double>(x[i]));
      const float near = static_cast<float>(truth);
      const double ulp = static_cast<double>(std::nextafter(near, INFINITY)) - static_cast<double>(near);
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - truth) / ulp);
    }
    INFO(k->isa, ": ", worst, " ulp");
    CHECK(worst < 2.0);
    const float special[] = {0.0F, -0.0F, -INFINITY, INFINITY, 89.5F, -104.5F, NAN, -100.0F};
    float out[8];
    k->exp(special, 8, out);
    CHECK(out[0] == 1.0F);
    CHECK(out[1] == 1.0F);
    CHECK(out[2] == 0.0F);
    CHECK(out[3] == INFINITY);
    CHECK(out[4] == INFINITY);
    CHECK(out[5] == 0.0F);
    CHECK(std::isnan(out[6]));
    CHECK(out[7] == doctest::Approx(std::exp(-100.0)).epsilon(0.05));  // subnormal
  }
}

TEST_CASE("gemm stays within the bound its data give, for every kernel path") {
  uint32_t seed = 0;
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    for (const int64_t inputs : {1, 2, 3, 16, 511, 512, 513, 1030}) {
      for (const int64_t outputs : {1, 15, 16, 64, 83}) {
        const Packed w = pack(random_floats(outputs * inputs, ++seed), outputs, inputs, storage);
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 13, 19, 20, 21, 97, 100}) {
          if (rows > 21 && inputs > 600) continue;
          const std::vector<float> x = random_floats(rows * inputs, ++seed);
          std::vector<double> seen(x.size());
          reference::round_activations(storage, x.data(), rows * inputs, seen.data());
          for (const CpuKernels* k : all_kernels()) {
            std::vector<float> work = scratch();
            std::vector<float> y(static_cast<size_t>(rows * outputs), NAN);
            const std::vector<unsigned char> prepared = prepare(*k, storage, x.data(), inputs, inputs, rows);
            GemmArgs args = gemm_args(w, outputs, inputs, x, rows, y, work.data());
            args.prepared = prepared.data();
            k->gemm(storage, args);
            for (int64_t r = 0; r < rows; ++r) {
              for (int64_t n = 0; n < outputs; ++n) {
                double sum = 0;
                double magnitude = 0;
                for (int64_t i = 0; i < inputs; ++i) {
                  const double product = seen[static_cast<size_t>(r * inputs + i)] *
                                         static_cast<double>(w.values[static_cast<size_t>(n * inputs + i)]);
                  sum += product;
                  magnitude += std::abs(product);
                }
                // The classical bound is inputs * eps * sum |x w|; errors of random sign stay far below it.
                const double bound =
                    magnitude * static_cast<double>(kEps) * (2 + std::sqrt(static_cast<double>(inputs)));
                const double error = std::abs(static_cast<double>(y[static_cast<size_t>(r * outputs + n)]) - sum);
                if (!(error <= bound)) {
                  FAIL(std::string(k->isa), " ", rows, " x ", inputs, " -> ", outputs, " at ", r, ", ", n, ": error ",
                       error, " > ", bound);
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("gemm gives a row the same bits alone, in a crowd, with scratch or without") {
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    const int64_t inputs = 777;
    const int64_t outputs = 83;
    const int64_t rows = 277;
    const Packed w = pack(random_floats(outputs * inputs, 1), outputs, inputs, storage);
    const std::vector<float> x = random_floats(rows * inputs, 2);
    for (const CpuKernels* k : all_kernels()) {
      std::vector<float> work = scratch();
      const auto multiply = [&](int64_t first, int64_t count, float* scratch) {
        const float* from = x.data() + first * inputs;
        const std::vector<unsigned char> prepared = prepare(*k, storage, from, inputs, inputs, count);
        std::vector<float> y(static_cast<size_t>(count * outputs));
        GemmArgs args = gemm_args(w, outputs, inputs, x, count, y, scratch);
        args.x = from;
        args.prepared = prepared.data();
        k->gemm(storage, args);
        return y;
      };
      const std::vector<float> all = multiply(0, rows, work.data());
      for (const int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 17, 19, 20, 25, 64, 131, 257, 261, 277}) {
        const int64_t first = (rows - count) / 2;
        for (float* const scratch : {static_cast<float*>(nullptr), work.data()}) {
          const std::vector<float> some = multiply(first, count, scratch);
          INFO(k->isa, " rows ", count, " scratch ", scratch != nullptr);
          CHECK(same_bits(some.data(), all.data() + first * outputs, some.size()));
        }
      }
    }
  }
}

// --- narrow BF16 ----------------------------------------------------------------------------------------------------

namespace {

// Weights whose exponents lie close together but for a few; null panels where they do not.
struct NarrowWeights {
  int64_t outputs;
  int64_t inputs;
  std::vector<unsigned char> plain;
  std::vector<unsigned char> narrow;
};

bool narrow_panels(NarrowWeights& w) {
  const int64_t plain_bytes = panel_bytes(Storage::bf16, w.inputs);
  const int64_t narrow_bytes = panel_bytes(Storage::narrow_bf16, w.inputs);
  w.narrow.assign(static_cast<size_t>(panel_count(w.outputs) * narrow_bytes), 0xFF);
  for (int64_t p = 0; p < panel_count(w.outputs); ++p) {
    if (!narrow_panel(w.plain.data() + p * plain_bytes, w.inputs, w.narrow.data() + p * narrow_bytes)) return false;
  }
  return true;
}

NarrowWeights narrow_weights(int64_t outputs, int64_t inputs, const std::vector<float>& values) {
  NarrowWeights w{outputs, inputs, pack(values, outputs, inputs, Storage::bf16).panels, {}};
  REQUIRE(narrow_panels(w));
  return w;
}

NarrowWeights random_narrow(int64_t outputs, int64_t inputs, uint32_t seed) {
  std::vector<float> values = random_floats(outputs * inputs, seed);
  std::mt19937 random(seed);
  // A row of another size, one of zeros, and values far from the others.
  for (int64_t k = 0; k < inputs; ++k) values[static_cast<size_t>(k)] *= 1e-20F;
  if (outputs > 2) std::fill_n(values.begin() + 2 * inputs, inputs, 0.0F);
  constexpr float kStrange[] = {0.0F, -0.0F, 1e30F, -1e-30F, 1e-39F, INFINITY};
  for (int64_t p = 0; p < panel_count(outputs); ++p) {
    for (int64_t i = 0; i < most_exceptions(inputs) / 2; ++i) {
      const int64_t row = std::min<int64_t>(outputs - 1, p * kPanelRows + random() % 16);
      values[static_cast<size_t>(row * inputs + random() % inputs)] = kStrange[random() % 5];
    }
  }
  return narrow_weights(outputs, inputs, values);
}

}  // namespace

TEST_CASE("narrow BF16 gives its values back, exceptions included") {
  for (const int64_t inputs : {8, 64, 264, 1024, 3072}) {
    for (const int64_t outputs : {1, 16, 37}) {
      const NarrowWeights w = random_narrow(outputs, inputs, static_cast<uint32_t>(inputs + outputs));
      std::vector<float> plain(static_cast<size_t>(inputs));
      std::vector<float> narrow(static_cast<size_t>(inputs));
      for (const CpuKernels* k : all_kernels()) {
        for (int64_t row = 0; row < panel_count(outputs) * kPanelRows; ++row) {
          k->unpack_row(Storage::bf16, w.plain.data(), inputs, row, plain.data());
          k->unpack_row(Storage::narrow_bf16, w.narrow.data(), inputs, row, narrow.data());
          REQUIRE(same_bits(plain.data(), narrow.data(), plain.size()));
        }
      }
    }
  }
}

TEST_CASE("narrow BF16 is three quarters of BF16, and refused where exponents lie too far apart") {
  CHECK(panel_bytes(Storage::narrow_bf16, 1024) * 100 < panel_bytes(Storage::bf16, 1024) * 76);
  // Any bits at all, NaN and infinities among them, as long as few are exceptions.
  std::mt19937 random(5);
  NarrowWeights w{16, 512, std::vector<unsigned char>(static_cast<size_t>(panel_bytes(Storage::bf16, 512))), {}};
  const auto put = [&](int64_t row, int64_t k, uint16_t bits) {
    std::memcpy(w.plain.data() + k / 2 * 64 + row * 4 + k % 2 * 2, &bits, sizeof bits);
  };
  for (int64_t row = 0; row < 16; ++row) {
    for (int64_t k = 0; k < 512; ++k) put(row, k, static_cast<uint16_t>(random() % 16 << 7 | (random() & 0x807FU)));
  }
  CHECK(narrow_panels(w));
  for (int64_t i = 0; i < most_exceptions(512); ++i) put(i, 31 * i, 0xFFFF);
  CHECK(narrow_panels(w));
  std::vector<float> row(512);
  for (int64_t i = 0; i < most_exceptions(512); ++i) {
    all_kernels()[0]->unpack_row(Storage::narrow_bf16, w.narrow.data(), 512, i, row.data());
    CHECK(bits_of(row[static_cast<size_t>(31 * i)]) == 0xFFFF0000U);
  }
  put(15, 511, 0x7F80);
  CHECK_FALSE(narrow_panels(w));
}

TEST_CASE("products with narrow BF16 have the bits of those with BF16, for any rows, panels, scale and sum") {
  int sets = 0;
  for (const CpuKernels* k : all_kernels()) {
    if (!k->narrow) continue;
    ++sets;
    uint32_t seed = 0;
    std::vector<float> work = scratch();
    for (const int64_t inputs : std::initializer_list<int64_t>{8, 40, 1024, 1032, 2056, kMostNarrowInputs}) {
      const int64_t outputs = inputs > 4096 ? 20 : 211;
      const NarrowWeights w = random_narrow(outputs, inputs, ++seed);
      for (const int64_t rows : {1, 2, 3, 4, 7, 12, 13, 16, 17, 25, 33, 97, 130}) {
        if (inputs > 4096 && rows > 17) continue;
        const std::vector<float> x = random_floats(rows * inputs, ++seed);
        const std::vector<unsigned char> prepared = prepare(*k, Storage::narrow_bf16, x.data(), inputs, inputs, rows);
        GemmArgs args{};
        args.outputs = outputs;
        args.inputs = inputs;
        args.panel_begin = seed % 2;
        args.panel_end = panel_count(outputs) - seed / 2 % 2;
        args.x = x.data();
        args.x_stride = inputs;
        args.prepared = prepared.data();
        args.rows = rows;
        args.y_stride = outputs + 3;
        args.scale = seed % 3 == 0 ? 1.0F : 0.75F;
        args.accumulate = seed % 4 == 0;
        args.scratch = work.data();
        std::vector<float> plain = random_floats(rows * args.y_stride, seed);
        std::vector<float> narrow = plain;
        args.panels = w.plain.data();
        args.y = plain.data();
        k->gemm(Storage::bf16, args);
        args.panels = w.narrow.data();
        args.y = narrow.data();
        k->gemm(Storage::narrow_bf16, args);
        INFO(k->isa, " ", rows, " x ", inputs, " -> ", outputs);
        REQUIRE(same_bits(plain.data(), narrow.data(), plain.size()));
      }
    }
  }
  MESSAGE("sets with products of narrow BF16: ", sets);
}

TEST_CASE("gemm writes its panels only, scales, and adds where told") {
  const int64_t inputs = 40;
  const int64_t outputs = 60;
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    const Packed w = pack(random_floats(outputs * inputs, 1), outputs, inputs, storage);
    for (const int64_t rows : {1, 2, 3, 9, 24}) {
      const std::vector<float> x = random_floats(rows * inputs, 2);
      for (const CpuKernels* k : all_kernels()) {
        std::vector<float> work = scratch();
        const std::vector<unsigned char> prepared = prepare(*k, storage, x.data(), inputs, inputs, rows);
        std::vector<float> plain(static_cast<size_t>(rows * outputs));
        GemmArgs args = gemm_args(w, outputs, inputs, x, rows, plain, work.data());
        args.prepared = prepared.data();
        k->gemm(storage, args);
        std::vector<float> y(plain.size(), 7.0F);
        args.y = y.data();
        args.panel_begin = 1;
        args.panel_end = 3;
        args.scale = -2.0F;
        args.accumulate = true;
        k->gemm(storage, args);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t n = 0; n < outputs; ++n) {
            const auto i = static_cast<size_t>(r * outputs + n);
            REQUIRE(y[i] == (n >= 16 && n < 48 ? 7.0F + -2.0F * plain[i] : 7.0F));
          }
        }
      }
    }
  }
}

TEST_CASE("an input beyond the last does not matter, also where BF16 pairs it") {
  for (const CpuKernels* k : all_kernels()) {
    const int64_t inputs = 5;
    const Packed w = pack(random_floats(16 * inputs, 1), 16, inputs, Storage::bf16);
    for (const int64_t rows : {1, 4, 30}) {
      std::vector<float> x = random_floats(rows * (inputs + 1), 2);
      for (int64_t r = 0; r < rows; ++r) x[static_cast<size_t>(r * (inputs + 1) + inputs)] = NAN;
      const std::vector<unsigned char> prepared = prepare(*k, Storage::bf16, x.data(), inputs + 1, inputs, rows);
      std::vector<float> work = scratch();
      std::vector<float> y(static_cast<size_t>(rows * 16));
      GemmArgs args = gemm_args(w, 16, inputs, x, rows, y, work.data());
      args.prepared = prepared.data();
      k->gemm(Storage::bf16, args);
      for (const float value : y) CHECK(std::isfinite(value));
    }
  }
}

TEST_CASE("BF16 weights see activations rounded to BF16, whatever they are") {
  const float ends[] = {0.0F, 1.0F, float_from_bits(0x3F808000), float_from_bits(0x3F818000), float_from_bits(0x3F808001),
                        std::numeric_limits<float>::max(), float_from_bits(0x7F7F7FFF), INFINITY, -INFINITY,
                        float_from_bits(0x7F800001), float_from_bits(0xFFFFFFFF), 0x1p-126F};  // fmt: skip
  const Packed one = pack({1.0F}, 1, 1, Storage::bf16);
  for (const CpuKernels* k : all_kernels()) {
    for (const float value : ends) {
      const std::vector<float> x = {value};
      const std::vector<unsigned char> prepared = prepare(*k, Storage::bf16, x.data(), 1, 1, 1);
      std::vector<float> y(1);
      GemmArgs args = gemm_args(one, 1, 1, x, 1, y, nullptr);
      args.prepared = prepared.data();
      k->gemm(Storage::bf16, args);
      const float expected = float_from_bf16(bf16_from_float(value));
      INFO(k->isa, " ", value);
      CHECK((std::isnan(expected) ? std::isnan(y[0]) : y[0] == expected));
    }
  }
}

TEST_CASE("norm, rotation and swiglu equal the reference") {
  for (const CpuKernels* k : all_kernels()) {
    for (const int64_t cols : {1, 3, 16, 31, 64, 80, 1000, 1024}) {
      const std::vector<float> x = random_floats(3 * cols, 4);
      const std::vector<float> weight = random_floats(cols, 5);
      std::vector<float> out(x.size());
      std::vector<float> truth(x.size());
      k->rms_norm(x.data(), weight.data(), 1e-6F, 3, cols, out.data());
      reference::rms_norm(x.data(), weight.data(), 1e-6F, 3, cols, truth.data());
      for (size_t i = 0; i < x.size(); ++i) CHECK(std::abs(out[i] - truth[i]) <= 8 * kEps * std::abs(truth[i]));
      std::vector<float> alone(static_cast<size_t>(cols));
      k->rms_norm(x.data() + 2 * cols, weight.data(), 1e-6F, 1, cols, alone.data());
      CHECK(same_bits(alone.data(), out.data() + 2 * cols, alone.size()));

      const std::vector<float> up = random_floats(3 * cols, 6);
      std::vector<float> gate = random_floats(3 * cols, 7);
      gate[0] = -200.0F;
      k->swiglu(gate.data(), up.data(), 3 * cols, out.data());
      reference::swiglu(gate.data(), up.data(), 3 * cols, truth.data());
      for (size_t i = 0; i < x.size(); ++i)
        CHECK(std::abs(out[i] - truth[i]) <= 8 * kEps * std::abs(truth[i]) + 1e-30F);
      k->swiglu(gate.data() + 1, up.data() + 1, 3 * cols - 1, truth.data());  // the same elements elsewhere
      CHECK(same_bits(truth.data(), out.data() + 1, out.size() - 1));

      if (cols % 2 != 0) continue;
      for (const int64_t half : {cols / 2, cols / 4}) {
        std::vector<float> angles = random_floats(half, 8);
        std::vector<float> cos(angles.size() + 1);
        std::vector<float> sin(angles.size() + 1);
        for (size_t i = 0; i < angles.size(); ++i) {
          cos[i] = std::cos(angles[i]);
          sin[i] = std::sin(angles[i]);
        }
        std::vector<float> turned = x;
        truth = x;
        NormRopeArgs args{};
        args.x = turned.data();
        args.heads = 3;
        args.head_dim = cols;
        args.norm = weight.data();
        args.eps = 1e-6F;
        args.cos = cos.data();
        args.sin = sin.data();
        args.half = half;
        k->norm_rope(args);
        reference::rms_norm(truth.data(), weight.data(), 1e-6F, 3, cols, truth.data());
        float most = 0;
        for (const float value : truth) most = std::max(most, std::abs(value));
        for (int64_t h = 0; h < 3; ++h) reference::rotate(truth.data() + h * cols, cos.data(), sin.data(), half);
        for (size_t i = 0; i < x.size(); ++i) CHECK(std::abs(turned[i] - truth[i]) <= 16 * kEps * most);
      }
    }
  }
}

namespace {

// INT8 keys and values of one head in shuffled blocks, beside what they say in plain numbers.
struct Int8Past {
  Int8Past(const CpuKernels& kernels, int64_t head_dim, int64_t tokens, uint32_t seed) : dim(head_dim), count(tokens) {
    const int64_t blocks = (tokens + kKvBlock - 1) / kKvBlock;
    block_bytes = kv_k_bytes(KvFormat::int8, dim) + kv_v_bytes(KvFormat::int8, dim);
    memory.assign(static_cast<size_t>(blocks * block_bytes), 0xA5);
    for (int64_t b = 0; b < blocks; ++b) table.push_back(static_cast<int32_t>(blocks - 1 - b));
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<float> k = random_floats(dim, seed + static_cast<uint32_t>(2 * t));
      const std::vector<float> v = random_floats(dim, seed + static_cast<uint32_t>(2 * t + 1));
      unsigned char* block = memory.data() + table[static_cast<size_t>(t / kKvBlock)] * block_bytes;
      kernels.kv_write(KvFormat::int8, k.data(), v.data(), dim, t % kKvBlock, block);
      read_key(block, t % kKvBlock);
      read_value(block + kv_k_bytes(KvFormat::int8, dim), t % kKvBlock);
    }
  }

  static double scale_at(const unsigned char* scales, int64_t token) {
    float scale;
    std::memcpy(&scale, scales + token * 4, sizeof scale);
    return static_cast<double>(scale);
  }

  // What was written, from where it lies: rounding it here once more could round a tie the other way.
  void read_key(const unsigned char* k, int64_t token) {
    const unsigned char* codes = k + kv_scale_bytes(KvFormat::int8);
    for (int64_t d = 0; d < dim; ++d) {
      keys.push_back(scale_at(k, token) * (codes[d / 4 * 64 + token * 4 + d % 4] - 128));
    }
  }
  void read_value(const unsigned char* v, int64_t token) {
    const unsigned char* codes = v + kv_scale_bytes(KvFormat::int8) + token / 4 * 64 + token % 4;
    for (int64_t d = 0; d < dim; ++d) {
      const int64_t panel = d / kPanelRows * kv_panel_bytes(KvFormat::int8, kKvBlock);
      values.push_back(scale_at(v, token) * (codes[panel + d % kPanelRows * 4] - 128));
    }
  }

  std::vector<double> attend(const float* q, int64_t past, double scale) const {
    std::vector<double> out(static_cast<size_t>(dim));
    double sum = 0;
    for (int64_t t = 0; t < past; ++t) {
      double score = 0;
      for (int64_t d = 0; d < dim; ++d) score += q[d] * scale * keys[static_cast<size_t>(t * dim + d)];
      const double p = std::exp(score);
      sum += p;
      for (int64_t d = 0; d < dim; ++d) out[static_cast<size_t>(d)] += p * values[static_cast<size_t>(t * dim + d)];
    }
    for (double& x : out) x /= sum;
    return out;
  }

  int64_t dim, count, block_bytes;
  std::vector<unsigned char> memory;
  std::vector<int32_t> table;
  std::vector<double> keys, values;
};

}  // namespace

TEST_CASE("attention over INT8 keys and values loses next to nothing beyond what they lost") {
  for (const CpuKernels* kernels : all_kernels()) {
    for (const int64_t dim : {1, 4, 7, 20, 64, 128, 200, 1024}) {
      const int64_t group = 3;
      const int64_t tokens = 150;
      const int64_t rows = 37;
      const Int8Past past(*kernels, dim, tokens, 7);
      const std::vector<float> q = random_floats(rows * group * dim, 5);
      std::vector<float> state(static_cast<size_t>(rows * group * state_stride(dim)));
      std::vector<float> scratch(static_cast<size_t>(attend_scratch(rows * group, dim)));
      std::vector<float> out(q.size());
      AttendArgs args{};
      args.format = KvFormat::int8;
      args.q = q.data();
      args.q_stride = group * dim;
      args.rows = rows;
      args.group = group;
      args.head_dim = dim;
      args.first_position = tokens - rows;
      args.scale = 1.0F / std::sqrt(static_cast<float>(dim));
      args.kv = past.memory.data();
      args.block_stride = past.block_bytes;
      args.block_table = past.table.data();
      args.split_end = 1;
      args.state = state.data();
      args.scratch = scratch.data();
      kernels->attend(args);
      kernels->finish(state.data(), rows, group, dim, out.data(), group * dim);
      double most = 0;
      double worst = 0;
      for (int64_t s = 0; s < rows * group; ++s) {
        const std::vector<double> expected =
            past.attend(q.data() + s * dim, args.first_position + s / group + 1, static_cast<double>(args.scale));
        for (int64_t d = 0; d < dim; ++d) {
          const double right = expected[static_cast<size_t>(d)];
          most = std::max(most, std::abs(right));
          worst = std::max(worst, std::abs(right - static_cast<double>(out[static_cast<size_t>(s * dim + d)])));
        }
      }
      INFO(kernels->isa, " head of ", dim, ": ", worst / most);
      CHECK(worst < 5e-4 * most);  // steps of 2^-14 of the largest; INT8's own are 2^-7
    }
  }
}

TEST_CASE("tables are found by name, the best first") {
  const std::vector<const CpuKernels*> all = all_kernels();
  REQUIRE(!all.empty());
  CHECK(best_kernels() == all[0]);
  for (const CpuKernels* const* k = available_kernels(); *k != nullptr; ++k) CHECK(find_kernels((*k)->isa) == *k);
  CHECK(find_kernels("sse9") == nullptr);
  CHECK(find_kernels("") == nullptr);
}
