// shrink and expand of every instruction set this machine has: against plain FP64 loops with a tolerance computed from
// the data, and against themselves bit by bit. Packing of factors too.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/factors.h"
#include "tests/kernels/all_kernels.h"
#include "tests/support/random_floats.h"

using namespace expert::kernels;
using expert::test::random_floats;

namespace {

constexpr double kEps = std::numeric_limits<float>::epsilon();

float stored(Storage storage, float value) {
  return storage == Storage::f32 ? value : float_from_bf16(bf16_from_float(value));
}

// BF16 lines of rows of A, or panels of B, made narrow by a set that can.
std::vector<unsigned char> narrowed(const std::vector<unsigned char>& lines, int64_t plain_bytes, bool is_row, int64_t head,
                                    int64_t narrow_bytes) {
  const CpuKernels* kernels = nullptr;
  for (const CpuKernels* k : all_kernels()) {
    if (k->narrow_lines != nullptr) kernels = k;
  }
  const auto count = static_cast<int64_t>(lines.size()) / plain_bytes;
  std::vector<unsigned char> narrow(static_cast<size_t>(count * narrow_bytes), 0xFF);
  for (int64_t i = 0; i < count; ++i) {
    REQUIRE(kernels->narrow_lines(lines.data() + i * plain_bytes, plain_bytes / 64, is_row, head,
                                  narrow.data() + i * narrow_bytes));
  }
  return narrow;
}

bool has_narrow() {
  for (const CpuKernels* k : all_kernels()) {
    if (k->narrow_lines != nullptr) return true;
  }
  return false;
}

// One expert's pair over a shared input.
struct Pair {
  Pair(int64_t in, int64_t out, int64_t r, Storage storage, uint32_t seed)
      : rank(r),
        a_values(random_floats(r * in, seed)),
        b_values(random_floats(out * r, seed + 1)),
        a(static_cast<size_t>(r * factor_row_bytes(storage, in)), 0xFF),
        b(static_cast<size_t>(panel_count(out) * factor_panel_bytes(storage, r)), 0xFF) {
    const CpuKernels& kernels = *best_kernels();
    if (storage == Storage::narrow_bf16) {
      for (size_t i = 0; i < a_values.size(); i += 397) a_values[i] *= i % 2 == 0 ? 1e-6F : 0.0F;
      for (size_t i = 0; i < b_values.size(); i += 199) b_values[i] *= i % 2 == 0 ? 1e-9F : 0.0F;
      a.resize(static_cast<size_t>(r * factor_row_bytes(Storage::bf16, in)));
      b.resize(static_cast<size_t>(panel_count(out) * factor_panel_bytes(Storage::bf16, r)));
      kernels.pack_factor_rows(Source::f32, a_values.data(), r, in, {}, Storage::bf16, a.data());
      kernels.pack_factor_panels(Source::f32, b_values.data(), out, r, {}, Storage::bf16, b.data());
      a = narrowed(a, factor_row_bytes(Storage::bf16, in), true, kNarrowRowHead, factor_row_bytes(storage, in));
      b = narrowed(b, factor_panel_bytes(Storage::bf16, r), false, narrow_panel_head(r), factor_panel_bytes(storage, r));
    } else {
      kernels.pack_factor_rows(Source::f32, a_values.data(), r, in, {}, storage, a.data());
      kernels.pack_factor_panels(Source::f32, b_values.data(), out, r, {}, storage, b.data());
    }
    for (float& value : a_values) value = stored(storage, value);
    for (float& value : b_values) value = stored(storage, value);
  }
  int64_t rank;
  std::vector<float> a_values, b_values;
  std::vector<unsigned char> a, b;
  float weight = 1.0F;
};

struct Case {
  Case(Storage s, int64_t i, int64_t o, const std::vector<int64_t>& ranks, uint32_t seed) : storage(s), in(i), out(o) {
    for (const int64_t rank : ranks) {
      pairs.emplace_back(in, out, rank, storage, seed += 2);
      pairs.back().weight = 0.25F + static_cast<float>(pairs.size());
      for (int64_t r = 0; r < rank; ++r) {
        factors.push_back(pairs.back().a.data() + r * factor_row_bytes(storage, in));
        weights.push_back(pairs.back().weight);
      }
    }
    // The panels of `pairs` moved while it grew; their heap blocks did not.
  }
  int64_t total() const { return static_cast<int64_t>(factors.size()); }

  std::vector<float> shrunk(const CpuKernels& k, const float* x, int64_t rows, int64_t begin, int64_t end,
                            float fill = NAN) const {
    std::vector<float> t(static_cast<size_t>(rows * total()), fill);
    k.shrink(storage, {factors.data(), weights.data(), total(), begin, end, x, in, rows, in, t.data(), total()});
    return t;
  }
  std::vector<ExpandTerm> terms(const float* t) const {
    std::vector<ExpandTerm> list;
    int64_t column = 0;
    for (const Pair& pair : pairs) {
      list.push_back({storage, pair.b.data(), pair.rank, t + column, total()});
      column += pair.rank;
    }
    return list;
  }
  ExpandArgs expand_args(const std::vector<ExpandTerm>& list, int64_t rows, float* y) const {
    ExpandArgs args{};
    args.terms = list.data();
    args.count = static_cast<int64_t>(list.size());
    args.outputs = out;
    args.panel_end = panel_count(out);
    args.rows = rows;
    args.y = y;
    args.y_stride = out;
    return args;
  }

  Storage storage;
  int64_t in, out;
  std::vector<Pair> pairs;
  std::vector<const unsigned char*> factors;
  std::vector<float> weights;
};

bool same_bits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0;
}

// Errors of random sign stay far below the classical bound n * eps * sum |products|.
double bound(double magnitude, int64_t n) { return magnitude * kEps * (3 + std::sqrt(static_cast<double>(n))); }

void check_shrink(const Case& c, const CpuKernels& k, const std::vector<float>& x, int64_t rows) {
  const std::vector<float> t = c.shrunk(k, x.data(), rows, 0, c.total());
  for (int64_t r = 0; r < rows; ++r) {
    int64_t column = 0;
    for (const Pair& pair : c.pairs) {
      for (int64_t j = 0; j < pair.rank; ++j, ++column) {
        double sum = 0;
        double magnitude = 0;
        for (int64_t i = 0; i < c.in; ++i) {
          const double product = static_cast<double>(x[static_cast<size_t>(r * c.in + i)]) *
                                 static_cast<double>(pair.a_values[static_cast<size_t>(j * c.in + i)]);
          sum += product;
          magnitude += std::abs(product);
        }
        const double w = static_cast<double>(pair.weight);
        const double error = std::abs(static_cast<double>(t[static_cast<size_t>(r * c.total() + column)]) - w * sum);
        if (!(error <= bound(w * magnitude, c.in))) {
          FAIL(std::string(k.isa), " in ", c.in, " row ", r, " factor ", column, " of ", c.total(), ": error ", error);
        }
      }
    }
  }
}

void check_expand(const Case& c, const CpuKernels& k, int64_t rows, uint32_t seed) {
  const std::vector<float> t = random_floats(rows * c.total(), seed);
  const std::vector<float> y = random_floats(rows * c.out, seed + 1);
  std::vector<float> got = y;
  k.expand(c.expand_args(c.terms(t.data()), rows, got.data()));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < c.out; ++n) {
      const auto at = static_cast<size_t>(r * c.out + n);
      double sum = static_cast<double>(y[at]);
      double magnitude = std::abs(sum);
      int64_t column = 0;
      for (const Pair& pair : c.pairs) {
        for (int64_t j = 0; j < pair.rank; ++j, ++column) {
          const double product = static_cast<double>(t[static_cast<size_t>(r * c.total() + column)]) *
                                 static_cast<double>(pair.b_values[static_cast<size_t>(n * pair.rank + j)]);
          sum += product;
          magnitude += std::abs(product);
        }
      }
      const double error = std::abs(static_cast<double>(got[at]) - sum);
      if (!(error <= bound(magnitude, c.total()))) {
        FAIL(std::string(k.isa), " out ", c.out, " row ", r, " output ", n, ": error ", error);
      }
    }
  }
}

const std::vector<std::vector<int64_t>> kRanks = {{1},  {2},  {3},        {5},           {7},         {8},  {9},
                                                  {16}, {17}, {1, 1, 1}, {3, 16, 1, 8}, {33, 2}, {64}, {255, 1}};

}  // namespace

TEST_CASE("packed factors hold every value, no rank is padded") {
  CHECK(factor_panel_bytes(Storage::bf16, 1) == 32);
  CHECK(factor_panel_bytes(Storage::bf16, 7) == 7 * 32);
  CHECK(factor_row_bytes(Storage::bf16, 1024) == 2048);
  CHECK(factor_row_bytes(Storage::f32, 1024) == 4096);
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    for (const int64_t rows : {1, 15, 16, 33}) {
      for (const int64_t cols : {1, 2, 31, 32, 33, 255, 256, 257, 600}) {
        const std::vector<float> values = random_floats(rows * cols, static_cast<uint32_t>(rows * cols));
        const std::vector<float> row_scale = random_floats(rows, 4);
        std::vector<uint16_t> bf16(values.size());
        std::vector<uint16_t> half(values.size());
        std::mt19937 random(9);
        for (size_t i = 0; i < values.size(); ++i) {
          bf16[i] = bf16_from_float(values[i]);
          half[i] = static_cast<uint16_t>(random() & 0xBBFFU);  // without infinities and NaN
        }
        std::vector<unsigned char> a(static_cast<size_t>(rows * factor_row_bytes(storage, cols)), 0xFF);
        std::vector<unsigned char> b(static_cast<size_t>(panel_count(rows) * factor_panel_bytes(storage, cols)), 0xFF);
        const auto check_set = [&](const CpuKernels& kernels, Source type, const void* source, FactorScale scale,
                                   const auto& value) {
          CAPTURE(kernels.isa);
          kernels.pack_factor_rows(type, source, rows, cols, scale, storage, a.data());
          kernels.pack_factor_panels(type, source, rows, cols, scale, storage, b.data());
          std::vector<float> from_a(static_cast<size_t>(cols));
          std::vector<float> from_b(static_cast<size_t>(cols));
          for (int64_t r = 0; r < rows; ++r) {
            unpack_factor_row(storage, a.data(), cols, r, from_a.data());
            unpack_factor_panel_row(storage, b.data(), cols, r, from_b.data());
            for (int64_t k = 0; k < cols; ++k) {
              const float by = scale.scale * (scale.row_scale == nullptr ? 1.0F : scale.row_scale[r]);
              const float expected = stored(storage, value(static_cast<size_t>(r * cols + k)) * by);
              REQUIRE(from_a[static_cast<size_t>(k)] == expected);
              REQUIRE(from_b[static_cast<size_t>(k)] == expected);
            }
          }
        };
        const auto check = [&](Source type, const void* source, FactorScale scale, const auto& value) {
          for (const CpuKernels* k : all_kernels()) check_set(*k, type, source, scale, value);
        };
        check(Source::f32, values.data(), {}, [&](size_t i) { return values[i]; });
        check(Source::bf16, bf16.data(), {}, [&](size_t i) { return float_from_bf16(bf16[i]); });
        check(Source::bf16, bf16.data(), {0.375F, nullptr}, [&](size_t i) { return float_from_bf16(bf16[i]); });
        check(Source::f16, half.data(), {2.0F, row_scale.data()}, [&](size_t i) { return float_from_f16(half[i]); });
      }
    }
  }
}

TEST_CASE("a factor scaled by a power of two is what rounding the products gives") {
  std::vector<uint16_t> values;  // every finite BF16 number, denormal ones too
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7F80U) != 0x7F80U) values.push_back(static_cast<uint16_t>(bits));
  }
  for (const int64_t cols : {1, 16, 33, 600}) {
    const auto rows = static_cast<int64_t>(values.size()) / cols;
    std::vector<unsigned char> packed(static_cast<size_t>(rows * factor_row_bytes(Storage::bf16, cols)));
    std::vector<float> row(static_cast<size_t>(cols));
    for (const float scale : {2.0F, 0.5F, 0x1p60F, 0x1p-60F, 0x1p99F, 0x1p-99F, 0x1p127F, 0x1p-126F, 0x1p-140F, -2.0F}) {
      for (const CpuKernels* kernels : all_kernels()) {
        CAPTURE(kernels->isa);
        kernels->pack_factor_rows(Source::bf16, values.data(), rows, cols, {scale, nullptr}, Storage::bf16,
                                  packed.data());
        for (int64_t r = 0; r < rows; ++r) {
          unpack_factor_row(Storage::bf16, packed.data(), cols, r, row.data());
          for (int64_t k = 0; k < cols; ++k) {
            const float value = float_from_bf16(values[static_cast<size_t>(r * cols + k)]);
            REQUIRE(bits_of(row[static_cast<size_t>(k)]) == bits_of(stored(Storage::bf16, value * scale)));
          }
        }
      }
    }
  }
}

TEST_CASE("shrink stays within the bound its data give") {
  uint32_t seed = 0;
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    for (const int64_t in : {1, 15, 16, 17, 31, 32, 33, 100, 1030}) {
      for (const auto& ranks : kRanks) {
        const Case c(storage, in, 4, ranks, ++seed * 100);
        for (const int64_t rows : {1, 2, 3, 9}) {
          if (c.total() > 40 && rows == 9) continue;
          const std::vector<float> x = random_floats(rows * in, ++seed);
          for (const CpuKernels* k : all_kernels()) check_shrink(c, *k, x, rows);
        }
      }
    }
  }
}

TEST_CASE("expand stays within the bound its data give") {
  uint32_t seed = 0;
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    for (const int64_t out : {1, 15, 16, 17, 64, 83}) {
      for (const auto& ranks : kRanks) {
        const Case c(storage, 3, out, ranks, ++seed * 100);
        for (const int64_t rows : {1, 2, 5, 6, 7, 20}) {
          for (const CpuKernels* k : all_kernels()) check_expand(c, *k, rows, ++seed);
        }
      }
    }
  }
}

TEST_CASE("narrow factors hold every value, or say that they cannot") {
  if (!has_narrow()) return;
  for (const int64_t cols : {128, 1024, 3072}) {
    const Pair pair(cols, 37, 24, Storage::narrow_bf16, static_cast<uint32_t>(cols));
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < 24; ++r) {
      unpack_factor_row(Storage::narrow_bf16, pair.a.data(), cols, r, row.data());
      REQUIRE(std::memcmp(row.data(), pair.a_values.data() + r * cols, row.size() * sizeof(float)) == 0);
    }
    for (int64_t r = 0; r < 37; ++r) {
      unpack_factor_panel_row(Storage::narrow_bf16, pair.b.data(), 24, r, row.data());
      REQUIRE(std::memcmp(row.data(), pair.b_values.data() + r * 24, 24 * sizeof(float)) == 0);
    }
  }
  CHECK(factor_row_bytes(Storage::narrow_bf16, 1024) == 1600);
  CHECK(factor_panel_bytes(Storage::narrow_bf16, 16) == 400);
  std::mt19937 random(3);
  for (const CpuKernels* k : all_kernels()) {
    if (k->narrow_lines == nullptr) continue;
    // Any bits of nearby exponents, infinities and NaN among them, and as many small values as the head has room for.
    std::vector<uint16_t> lines(16 * 32);
    std::vector<unsigned char> narrow(static_cast<size_t>(kNarrowRowHead + 4 * kNarrowUnitBytes));
    std::vector<float> row(512);
    for (const uint32_t top : {13U, 100U, 255U}) {
      for (uint16_t& bits : lines) bits = static_cast<uint16_t>((top - random() % 13) << 7 | (random() & 0x807FU));
      for (int64_t i = 0; i < most_small(kNarrowRowHead); ++i) lines[static_cast<size_t>(i) * 33] = static_cast<uint16_t>(1 + i);
      REQUIRE(k->narrow_lines(reinterpret_cast<unsigned char*>(lines.data()), 16, true, kNarrowRowHead, narrow.data()));
      unpack_factor_row(Storage::narrow_bf16, narrow.data(), 512, 0, row.data());
      for (int64_t i = 0; i < 512; ++i) {
        const uint16_t bits = lines[static_cast<size_t>(i / 32 * 32 + i % 16 * 2 + i % 32 / 16)];
        REQUIRE(bits_of(row[static_cast<size_t>(i)]) == static_cast<uint32_t>(bits) << 16);
      }
      lines[500] = 1;
      CHECK(k->narrow_lines(reinterpret_cast<unsigned char*>(lines.data()), 16, true, kNarrowRowHead, narrow.data()) ==
            (top == 13));  // where the largest are tiny, nothing is too small
    }
  }
}

TEST_CASE("shrink and expand with narrow factors stay within the bounds their data give") {
  if (!has_narrow()) return;
  uint32_t seed = 0;
  for (const auto& ranks : {std::vector<int64_t>{8}, {16}, {64, 8}, {16, 16, 24}}) {
    for (const int64_t size : {128, 1024}) {
      const Case c(Storage::narrow_bf16, size, 83, ranks, ++seed * 100);
      for (const int64_t rows : {1, 2, 5, 17, 40}) {
        const std::vector<float> x = random_floats(rows * size, ++seed);
        for (const CpuKernels* k : all_kernels()) {
          if (k->narrow_lines == nullptr) continue;
          check_shrink(c, *k, x, rows);
          check_expand(c, *k, rows, ++seed);
        }
      }
    }
  }
}

TEST_CASE("a row gets the same bits alone, in a crowd, and however factors and panels are cut") {
  for (const Storage storage : {Storage::f32, Storage::bf16, Storage::narrow_bf16}) {
    const bool narrow = storage == Storage::narrow_bf16;
    if (narrow && !has_narrow()) continue;
    const Case c = narrow ? Case(storage, 256, 83, {16, 8, 8, 32}, 7) : Case(storage, 205, 83, {16, 3, 1, 8}, 7);
    const int64_t rows = narrow ? 73 : 23;
    const std::vector<float> x = random_floats(rows * c.in, 3);
    const std::vector<float> y = random_floats(rows * c.out, 4);
    for (const CpuKernels* k : all_kernels()) {
      if (narrow && k->narrow_lines == nullptr) continue;
      const std::vector<float> t = c.shrunk(*k, x.data(), rows, 0, c.total());
      std::vector<float> all = y;
      k->expand(c.expand_args(c.terms(t.data()), rows, all.data()));
      for (const int64_t count : {1, 2, 3, 4, 5, 6, 7, 13}) {
        for (int64_t first = 0; first + count <= rows; first += count) {
          std::vector<float> part = c.shrunk(*k, x.data() + first * c.in, count, 0, 5, 0.0F);
          const std::vector<float> rest = c.shrunk(*k, x.data() + first * c.in, count, 5, c.total(), 0.0F);
          for (size_t i = 0; i < part.size(); ++i) part[i] += rest[i];
          INFO(k->isa, " rows ", first, " + ", count);
          REQUIRE(same_bits(part.data(), t.data() + first * c.total(), count * c.total()));
          std::vector<float> some(y.begin() + first * c.out, y.begin() + (first + count) * c.out);
          const std::vector<ExpandTerm> terms = c.terms(part.data());
          for (const int64_t panel : {0, 1, 5}) {
            ExpandArgs args = c.expand_args(terms, count, some.data());
            args.panel_begin = panel;
            args.panel_end = panel == 0 ? 1 : (panel == 1 ? 5 : panel_count(c.out));
            k->expand(args);
          }
          REQUIRE(same_bits(some.data(), all.data() + first * c.out, count * c.out));
        }
      }
    }
  }
}

TEST_CASE("expand scales and adds in the order of the formula, and nothing else without terms") {
  const Case c(Storage::bf16, 3, 37, {5}, 1);
  const int64_t rows = 3;
  const std::vector<float> t = random_floats(rows * c.total(), 2);
  const std::vector<float> y = random_floats(rows * c.out, 3);
  const std::vector<float> e = random_floats(c.out, 4);
  const std::vector<float> b = random_floats(c.out, 5);
  const std::vector<float> db = random_floats(c.out, 6);
  const std::vector<float> s = random_floats(c.out, 7);
  const std::vector<ExpandTerm> terms = c.terms(t.data());
  for (const CpuKernels* k : all_kernels()) {
    std::vector<float> zero(y.size(), 0.0F);
    k->expand(c.expand_args(terms, rows, zero.data()));
    for (const bool with_terms : {false, true}) {
      std::vector<float> got = y;
      ExpandArgs args = c.expand_args(terms, rows, got.data());
      if (!with_terms) args.count = 0;
      args.base_scale = e.data();
      args.base_bias = b.data();
      args.bias = db.data();
      args.result_scale = s.data();
      k->expand(args);
      for (size_t i = 0; i < got.size(); ++i) {
        const size_t n = i % static_cast<size_t>(c.out);
        float expected = y[i] * e[n];
        if (with_terms) expected = expected + zero[i];
        expected = (expected + b[n] + db[n]) * s[n];
        REQUIRE(got[i] == expected);
      }
    }
    std::vector<float> kept(y.size(), -0.0F);
    ExpandArgs nothing = c.expand_args(terms, rows, kept.data());
    nothing.count = 0;
    k->expand(nothing);
    for (const float value : kept) REQUIRE(std::signbit(value));
  }
}

TEST_CASE("an input beyond the last does not matter to shrink") {
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    const Case c(storage, 21, 4, {3}, 1);
    std::vector<float> x = random_floats(2 * 22, 2);
    x[21] = x[43] = NAN;
    for (const CpuKernels* k : all_kernels()) {
      for (const int64_t rows : {1, 2}) {
        std::vector<float> t(static_cast<size_t>(rows * 3));
        k->shrink(storage, {c.factors.data(), c.weights.data(), 3, 0, 3, x.data(), 22, rows, 21, t.data(), 3});
        for (const float value : t) CHECK(std::isfinite(value));
      }
    }
  }
}

TEST_CASE("terms of different storages and strides stand side by side") {
  const Case exact(Storage::f32, 3, 83, {4, 1}, 1);
  const Case rounded(Storage::bf16, 3, 83, {5}, 50);
  const int64_t rows = 7;
  const std::vector<float> t = random_floats(rows * exact.total(), 2);
  const std::vector<float> u = random_floats(rows * rounded.total(), 3);
  std::vector<ExpandTerm> both = exact.terms(t.data());
  const std::vector<ExpandTerm> other = rounded.terms(u.data());
  both.insert(both.end(), other.begin(), other.end());
  for (const CpuKernels* k : all_kernels()) {
    std::vector<float> together(static_cast<size_t>(rows * 83), 0.0F);
    std::vector<float> apart = together;
    k->expand(exact.expand_args(both, rows, together.data()));
    k->expand(exact.expand_args(exact.terms(t.data()), rows, apart.data()));
    k->expand(rounded.expand_args(other, rows, apart.data()));
    for (size_t i = 0; i < apart.size(); ++i) CHECK(std::abs(together[i] - apart[i]) < 1e-5F);
    std::vector<float> alone(83, 0.0F);
    for (ExpandTerm& term : both) term.t += 2 * term.t_stride;
    k->expand(exact.expand_args(both, 1, alone.data()));
    for (ExpandTerm& term : both) term.t -= 2 * term.t_stride;
    CHECK(same_bits(alone.data(), together.data() + 2 * 83, 83));
  }
}
