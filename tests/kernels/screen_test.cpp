// Screens: their products stay within the margin they promise, on every instruction set, and come close enough to it that
// the margin is worth something.
#include "kernels/cpu/screen.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "tests/kernels/all_kernels.h"
#include "tests/support/random_floats.h"

using namespace expert::kernels;
using expert::test::random_floats;

namespace {

struct ScreenedRows {
  int64_t outputs;
  int64_t inputs;
  std::vector<float> w;
  std::vector<unsigned char> panels;
  std::vector<unsigned char> fine;
  std::vector<FineRow> fine_rows;
  std::vector<ScreenBound> bounds;
  ScreenRotation rotation;
};

ScreenedRows screened(std::vector<float> w, int64_t outputs, int64_t inputs) {
  ScreenedRows rows{outputs, inputs, std::move(w), {}, {}, {}, {}, ScreenRotation(inputs)};
  const int64_t bytes = screen_panel_bytes(inputs);
  const int64_t panels = panel_count(outputs);
  rows.panels.assign(static_cast<size_t>(panels * bytes), 0xFF);
  rows.fine.assign(static_cast<size_t>(panels * kPanelRows * fine_row_bytes(inputs)), 0xFF);
  rows.fine_rows.resize(static_cast<size_t>(panels * kPanelRows));
  rows.bounds.resize(static_cast<size_t>(panels));
  for (int64_t p = 0; p < panels; ++p) {
    pack_screen_panel(rows.rotation, rows.w.data() + p * kPanelRows * inputs,
                      std::min(kPanelRows, outputs - p * kPanelRows), inputs,
                      {rows.panels.data() + p * bytes, rows.fine.data() + p * kPanelRows * fine_row_bytes(inputs),
                       rows.fine_rows.data() + p * kPanelRows, rows.bounds.data() + p});
  }
  return rows;
}

struct Estimates {
  std::vector<float> y;
  ScreenMargin margin;
  std::vector<ScreenBound> bounds;  // of each row
};

// By two bits of each weight, or by four.
Estimates estimates(const CpuKernels& k, const ScreenedRows& rows, const std::vector<float>& x, Storage storage, int bits) {
  std::vector<unsigned char> prepared(static_cast<size_t>(screened_row_bytes(rows.inputs)), 0xEE);
  Estimates result{std::vector<float>(static_cast<size_t>(rows.outputs)), {}, {}};
  result.margin = prepare_screened_row(rows.rotation, storage, x.data(), rows.inputs, prepared.data());
  GemmArgs args{};
  args.panels = rows.panels.data();
  args.outputs = rows.outputs;
  args.inputs = rows.inputs;
  args.panel_end = panel_count(rows.outputs);
  args.x = x.data();
  args.x_stride = rows.inputs;
  args.prepared = prepared.data();
  args.rows = 1;
  args.y = result.y.data();
  args.y_stride = rows.outputs;
  args.scale = 1.0F;
  k.screen(args);
  for (int64_t n = 0; n < rows.outputs; ++n) {
    result.bounds.push_back(rows.bounds[static_cast<size_t>(n / kPanelRows)]);
    if (bits == 2) continue;
    const FineRow& fine = rows.fine_rows[static_cast<size_t>(n)];
    float& y = result.y[static_cast<size_t>(n)];
    y = k.refine(fine, rows.fine.data() + n * fine_row_bytes(rows.inputs), rows.inputs, prepared.data(), y);
    result.bounds.back() = fine.bound;
  }
  return result;
}

// Activations as a product of the matrix reads them.
std::vector<double> activations(const std::vector<float>& x, Storage storage) {
  std::vector<double> values(x.begin(), x.end());
  for (size_t first = 0; is_quantised(storage) && first < x.size(); first += kGroup) {
    const size_t last = std::min(x.size(), first + kGroup);
    float most = 0;
    for (size_t i = first; i < last; ++i) most = std::max(most, std::abs(x[i]));
    const bool counts = most > kLeastQuantised;
    for (size_t i = first; i < last; ++i) {
      const float code = counts ? std::nearbyint(x[i] * (127.0F / most)) : 0.0F;
      values[i] = static_cast<double>(code) * static_cast<double>(most / 127.0F);
    }
  }
  for (double& value : values) {
    if (storage == Storage::bf16) value = static_cast<double>(float_from_bf16(bf16_from_float(static_cast<float>(value))));
  }
  return values;
}

// (estimate - product) / margin of each output.
std::vector<double> shares_of_margin(const ScreenedRows& rows, const std::vector<float>& x, Storage storage,
                                     const Estimates& found) {
  const std::vector<double> h = activations(x, storage);
  std::vector<double> shares;
  for (int64_t n = 0; n < rows.outputs; ++n) {
    double product = 0;
    for (int64_t i = 0; i < rows.inputs; ++i) {
      product += static_cast<double>(rows.w[static_cast<size_t>(n * rows.inputs + i)]) * h[static_cast<size_t>(i)];
    }
    const ScreenBound& bound = found.bounds[static_cast<size_t>(n)];
    const double margin = static_cast<double>(found.margin.spread) * static_cast<double>(bound.spread) +
                          static_cast<double>(found.margin.norm) * static_cast<double>(bound.norm) +
                          static_cast<double>(found.margin.least);
    const double off = static_cast<double>(found.y[static_cast<size_t>(n)]) - product;
    shares.push_back(off == 0 ? 0 : off / margin);
  }
  return shares;
}

double furthest(const std::vector<double>& shares) {
  double most = 0;
  for (const double share : shares) most = share == share ? std::max(most, std::abs(share)) : INFINITY;
  return most;
}

constexpr Storage kMatrices[] = {Storage::f32, Storage::bf16, Storage::int8};

}  // namespace

TEST_CASE("products with a screen stay within its margin: any shape, any activations") {
  for (const CpuKernels* k : all_kernels()) {
    for (const int64_t inputs : {1, 5, 31, 32, 33, 64, 96, 257, 1024}) {
      for (const int64_t outputs : {1, 15, 16, 37}) {
        const auto seed = static_cast<uint32_t>(inputs * 100 + outputs);
        const ScreenedRows rows = screened(random_floats(outputs * inputs, seed, 0.02F), outputs, inputs);
        std::vector<float> outlier = random_floats(inputs, seed + 1);
        outlier[static_cast<size_t>(inputs / 2)] = 300.0F;
        const std::vector<float> equal(static_cast<size_t>(inputs), 0.7F);
        for (const Storage storage : kMatrices) {
          CAPTURE(k->isa);
          CAPTURE(inputs);
          CAPTURE(outputs);
          for (const std::vector<float>& x : {random_floats(inputs, seed + 2), outlier, equal,
                                              random_floats(inputs, seed + 3, 1e-20F), random_floats(inputs, seed + 4, 1e9F)}) {
            for (const int bits : {2, 4}) {
              CHECK(furthest(shares_of_margin(rows, x, storage, estimates(*k, rows, x, storage, bits))) < 1);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the margin is what the errors' distribution asks for, no more") {
  constexpr int64_t kInputs = 1024;
  constexpr int64_t kOutputs = 4096;
  const ScreenedRows rows = screened(random_floats(kOutputs * kInputs, 7, 0.02F), kOutputs, kInputs);
  for (const CpuKernels* k : all_kernels()) {
    CAPTURE(k->isa);
    const std::vector<float> x = random_floats(kInputs, 8);
    for (const int bits : {2, 4}) {
      CAPTURE(bits);
      const std::vector<double> shares =
          shares_of_margin(rows, x, Storage::int8, estimates(*k, rows, x, Storage::int8, bits));
      double sum = 0;
      double squares = 0;
      for (const double share : shares) {
        sum += share;
        squares += share * share;
      }
      // The margin is 6.5 deviations and what rounding activations can cost: a little of the first, a fifth of the finer.
      CHECK(std::abs(sum / kOutputs) < 0.01);
      CHECK(std::sqrt(squares / kOutputs) == doctest::Approx(bits == 2 ? 0.147 : 0.136).epsilon(0.05));
      CHECK(furthest(shares) < 0.7);
    }
  }
}

TEST_CASE("rows and activations of any structure stay within the margin, most of them far within") {
  constexpr int64_t kOutputs = 512;
  for (const int64_t inputs : {96, 512, 768, 1024}) {
    std::mt19937 random(static_cast<uint32_t>(inputs));
    const auto width = static_cast<size_t>(inputs);
    const auto filled = [&](const auto& value) {
      std::vector<float> w(kOutputs * width);
      for (int64_t n = 0; n < kOutputs; ++n) {
        for (int64_t k = 0; k < inputs; ++k) w[static_cast<size_t>(n * inputs + k)] = value(n, k);
      }
      return w;
    };
    const std::vector<float> common = random_floats(inputs, 1);
    const std::vector<float> noise = random_floats(kOutputs * inputs, 2, 0.1F);
    const auto at = [&](const std::vector<float>& values, int64_t n, int64_t k) { return values[static_cast<size_t>(n * inputs + k)]; };
    const std::vector<std::vector<float>> matrices = {
        filled([](int64_t n, int64_t k) { return n == k ? 1.0F : 0.0F; }),              // one input each
        filled([](int64_t n, int64_t k) { return (n & k) % 3 == 0 ? 0.5F : -0.5F; }),   // signs
        filled([](int64_t n, int64_t k) { return std::popcount(static_cast<uint64_t>(n & k)) % 2 == 0 ? 1.0F : -1.0F; }),  // Hadamard's
        filled([&](int64_t n, int64_t k) { return common[static_cast<size_t>(k)] + at(noise, n, k); }),  // nearly equal
        filled([&](int64_t n, int64_t k) { return k < 4 ? 10.0F * at(noise, n, k) : 0.01F * at(noise, n, k); }),
        filled([&](int64_t n, int64_t k) { return std::pow(at(noise, n, k), 5.0F); }),  // few large ones
        filled([&](int64_t n, int64_t) { return at(noise, n, 0); }),                    // constant
    };
    std::vector<float> one(width, 0.0F);
    one[width / 3] = 2.0F;
    std::vector<float> heavy = random_floats(inputs, 3);
    for (float& value : heavy) value = value * value * value;
    for (size_t m = 0; m < matrices.size(); ++m) {
      CAPTURE(inputs);
      CAPTURE(m);
      const ScreenedRows rows = screened(matrices[m], kOutputs, inputs);
      const std::vector<float> first(matrices[m].begin(), matrices[m].begin() + inputs);
      for (const std::vector<float>& x : {common, one, heavy, first, std::vector<float>(width, 1.0F)}) {
        for (const int bits : {2, 4}) {
          const CpuKernels& k = *all_kernels().front();
          const std::vector<double> shares = shares_of_margin(rows, x, Storage::f32, estimates(k, rows, x, Storage::f32, bits));
          CHECK(furthest(shares) < 0.9);
          double squares = 0;
          for (const double share : shares) squares += share * share;
          CHECK(std::sqrt(squares / kOutputs) < 0.25);
        }
      }
    }
  }
}

TEST_CASE("a row has the same products with a screen alone and in a crowd, and on every instruction set") {
  constexpr int64_t kInputs = 200;
  constexpr int64_t kOutputs = 90;
  constexpr int64_t kRows = 9;
  const ScreenedRows rows = screened(random_floats(kOutputs * kInputs, 5, 0.02F), kOutputs, kInputs);
  const std::vector<float> x = random_floats(kRows * kInputs, 6);
  std::vector<float> first;
  for (const CpuKernels* k : all_kernels()) {
    CAPTURE(k->isa);
    std::vector<unsigned char> prepared(static_cast<size_t>(kRows * screened_row_bytes(kInputs)));
    std::vector<float> y(kRows * kOutputs);
    std::vector<float> alone;
    for (int64_t r = 0; r < kRows; ++r) {
      const std::vector<float> row(x.begin() + r * kInputs, x.begin() + (r + 1) * kInputs);
      const std::vector<float> found = estimates(*k, rows, row, Storage::int8, 2).y;
      alone.insert(alone.end(), found.begin(), found.end());
      prepare_screened_row(rows.rotation, Storage::int8, row.data(), kInputs,
                           prepared.data() + r * screened_row_bytes(kInputs));
    }
    GemmArgs args{};
    args.panels = rows.panels.data();
    args.outputs = kOutputs;
    args.inputs = kInputs;
    args.panel_end = panel_count(kOutputs);
    args.prepared = prepared.data();
    args.rows = kRows;
    args.y = y.data();
    args.y_stride = kOutputs;
    args.scale = 1.0F;
    k->screen(args);
    CHECK(y == alone);
    if (first.empty()) first = y;
    CHECK(y == first);
  }
}

TEST_CASE("weights that a screen has no steps for: zeros, far too small, equal, of very different size") {
  const CpuKernels& k = *all_kernels().front();
  constexpr int64_t kInputs = 96;
  const std::vector<float> x = random_floats(kInputs, 3);
  std::vector<float> mixed = random_floats(20 * kInputs, 4);
  for (size_t i = 0; i < mixed.size(); ++i) mixed[i] *= std::pow(10.0F, static_cast<float>(i % 37) - 30.0F);
  const std::vector<float> zeros(20 * kInputs, 0.0F);
  const std::vector<float> small(20 * kInputs, 1e-38F);
  const std::vector<float> equal(20 * kInputs, 0.25F);
  for (const std::vector<float>& w : {mixed, zeros, small, equal}) {
    const ScreenedRows rows = screened(w, 20, kInputs);
    for (const Storage storage : kMatrices) {
      for (const int bits : {2, 4}) {
        CHECK(furthest(shares_of_margin(rows, x, storage, estimates(k, rows, x, storage, bits))) < 1);
      }
    }
  }
}

TEST_CASE("activations that are not numbers give a margin that is none") {
  const CpuKernels& k = *all_kernels().front();
  const ScreenedRows rows = screened(random_floats(16 * 64, 1), 16, 64);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t place : {0, 40, 63}) {
      std::vector<float> x = random_floats(64, 2);
      x[place] = bad;
      CHECK_FALSE(std::isfinite(estimates(k, rows, x, Storage::int8, 2).margin.spread));
      CHECK_FALSE(std::isfinite(estimates(k, rows, x, Storage::bf16, 2).margin.norm));
    }
  }
}

TEST_CASE("the largest of each panel, and whether all are numbers") {
  for (const int64_t outputs : {1, 15, 16, 17, 70}) {
    std::vector<float> y = random_floats(outputs, 5);
    const int64_t panels = panel_count(outputs);
    std::vector<float> maxima(static_cast<size_t>(panels), 99.0F);
    CHECK(panel_maxima(y.data(), outputs, 0, panels, maxima.data()));
    for (int64_t p = 0; p < panels; ++p) {
      const auto first = y.begin() + p * kPanelRows;
      CHECK(maxima[static_cast<size_t>(p)] == *std::max_element(first, first + std::min(kPanelRows, outputs - p * kPanelRows)));
    }
    for (int64_t i = 0; i < outputs; ++i) {
      const float kept = y[static_cast<size_t>(i)];
      y[static_cast<size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
      CHECK_FALSE(panel_maxima(y.data(), outputs, 0, panels, maxima.data()));
      y[static_cast<size_t>(i)] = -std::numeric_limits<float>::infinity();
      CHECK(panel_maxima(y.data(), outputs, 0, panels, maxima.data()));
      y[static_cast<size_t>(i)] = kept;
    }
  }
}
