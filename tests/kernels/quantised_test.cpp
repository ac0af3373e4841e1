// INT8 and INT4 on every instruction set of this machine: scales as the reference chooses them, products against FP64
// loops over what the codes stand for, and every row against itself alone, bit by bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/panels.h"
#include "kernels/reference/reference.h"
#include "tests/kernels/all_kernels.h"
#include "tests/support/random_floats.h"

using namespace expert::kernels;
using expert::test::random_floats;

namespace {

constexpr Storage kQuantised[] = {Storage::int8, Storage::int4};
constexpr int64_t kBlock = kGroup * kPanelRows;

const char* name_of(Storage storage) { return storage == Storage::int8 ? "int8" : "int4"; }

struct Layer {
  Storage storage;
  int64_t outputs;
  int64_t inputs;
  std::vector<unsigned char> panels;
  std::vector<float> values;  // what the panels hold, row-major
};

Layer pack(const std::vector<float>& w, int64_t outputs, int64_t inputs, Storage storage) {
  Layer layer{storage, outputs, inputs, {}, w};
  layer.panels.assign(static_cast<size_t>(panel_count(outputs) * panel_bytes(storage, inputs)), 0xFF);
  pack_quantised_panels(Source::f32, w.data(), outputs, inputs, storage, reference::quantise_weights,
                        layer.panels.data());
  for (int64_t r = 0; r < outputs; ++r) {
    all_kernels()[0]->unpack_row(storage, layer.panels.data(), inputs, r, layer.values.data() + r * inputs);
  }
  return layer;
}

std::vector<unsigned char> codes_of(const CpuKernels& k, Storage storage, const std::vector<float>& x, int64_t inputs) {
  const auto rows = static_cast<int64_t>(x.size()) / inputs;
  std::vector<unsigned char> codes(static_cast<size_t>(rows * quantised_row_bytes(inputs)), 0xEE);
  for (int64_t r = 0; r < rows; ++r) {
    k.prepare_row(storage, x.data() + r * inputs, inputs, {0, inputs}, codes.data() + r * quantised_row_bytes(inputs));
  }
  return codes;
}

std::vector<float> scratch() { return std::vector<float>(static_cast<size_t>(kGemmScratch)); }

std::vector<float> multiply(const CpuKernels& k, const Layer& layer, const std::vector<float>& x, bool with_scratch) {
  const auto rows = static_cast<int64_t>(x.size()) / layer.inputs;
  const std::vector<unsigned char> codes = codes_of(k, layer.storage, x, layer.inputs);
  std::vector<float> work = scratch();
  std::vector<float> y(static_cast<size_t>(rows * layer.outputs), NAN);
  GemmArgs args{};
  args.panels = layer.panels.data();
  args.outputs = layer.outputs;
  args.inputs = layer.inputs;
  args.panel_end = panel_count(layer.outputs);
  args.prepared = codes.data();
  args.rows = rows;
  args.y = y.data();
  args.y_stride = layer.outputs;
  args.scale = 1.0F;
  args.scratch = with_scratch ? work.data() : nullptr;
  k.gemm(layer.storage, args);
  return y;
}

std::vector<float> rows_of(const std::vector<float>& x, int64_t inputs, int64_t first, int64_t count) {
  return {x.begin() + first * inputs, x.begin() + (first + count) * inputs};
}

bool same_bits(const float* a, const float* b, size_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

// llama.cpp's rounding of a block of 32, as its Q8_0 and Q4_0 define it.
float plain_rounding_error(Storage storage, const float* w) {
  float largest = 0;
  for (int64_t k = 0; k < kGroup; ++k) {
    if (std::abs(w[k * kPanelRows]) > std::abs(largest)) largest = w[k * kPanelRows];
  }
  const float scale = storage == Storage::int8 ? std::abs(largest) / 127 : largest / -8;
  float error = 0;
  for (int64_t k = 0; k < kGroup; ++k) {
    const float x = w[k * kPanelRows];
    const float q = storage == Storage::int8 ? std::nearbyint(x / scale) : std::min(15.0F, std::floor(x / scale + 8.5F)) - 8;
    error += (x - q * scale) * (x - q * scale);
  }
  return error;
}

// Weights of a row as a group of a panel has them: 16 apart, zeros behind the last.
std::vector<float> group_of(const std::vector<float>& w, int64_t inputs, int64_t row, int64_t group) {
  std::vector<float> block(static_cast<size_t>(kBlock));
  for (int64_t k = group * kGroup; k < std::min(inputs, (group + 1) * kGroup); ++k) {
    block[static_cast<size_t>((k - group * kGroup) * kPanelRows)] = w[static_cast<size_t>(row * inputs + k)];
  }
  return block;
}

}  // namespace

TEST_CASE("every instruction set chooses the reference's scales and codes") {
  std::vector<std::vector<float>> blocks;
  for (const float spread : {1.0F, 0.02F, 1e-20F, 1e20F, 1e-36F, 3e-38F}) {
    blocks.push_back(random_floats(kBlock, static_cast<uint32_t>(blocks.size()), spread));
  }
  std::vector<float> odd(static_cast<size_t>(kBlock));  // an output each of: zeros, one value, tails, halves, …
  for (int64_t k = 0; k < kGroup; ++k) {
    float* row = odd.data() + k * kPanelRows;
    row[1] = k == 7 ? 1.0F : 0.0F;
    row[2] = k == 7 ? -1.0F : 0.001F;
    row[3] = static_cast<float>(k);
    row[4] = -static_cast<float>(k);
    row[5] = k % 2 != 0 ? 0.5F : -0.5F;
    row[6] = std::numeric_limits<float>::max();
    row[7] = std::numeric_limits<float>::denorm_min();
    row[8] = k == 0 ? std::numeric_limits<float>::denorm_min() : -0.0F;
    row[9] = k == 31 ? INFINITY : 1.0F;
    row[10] = k == 0 ? NAN : 1.0F;
    row[11] = k == 3 ? -INFINITY : static_cast<float>(k);
    row[12] = 1e-30F;
    row[13] = k == 1 ? std::numeric_limits<float>::lowest() : 1.0F;
    row[14] = std::numeric_limits<float>::min() * static_cast<float>(k);
    row[15] = 3.0F;
  }
  blocks.push_back(odd);
  for (const Storage storage : kQuantised) {
    for (size_t b = 0; b < blocks.size(); ++b) {
      uint16_t expected_scales[kPanelRows];
      unsigned char expected[kBlock];
      reference::quantise_weights(storage, blocks[b].data(), expected_scales, expected);
      for (const CpuKernels* k : all_kernels()) {
        uint16_t scales[kPanelRows];
        unsigned char codes[kBlock];
        k->quantise_weights(storage, blocks[b].data(), scales, codes);
        INFO(k->isa, " ", name_of(storage), " block ", b);
        CHECK(std::memcmp(scales, expected_scales, sizeof scales) == 0);
        CHECK(std::memcmp(codes, expected, sizeof codes) == 0);
      }
    }
  }
}

TEST_CASE("the scales found lose less than plain rounding; zeros stay zero; what is not finite stays so") {
  for (const Storage storage : kQuantised) {
    double ours = 0;
    double plain = 0;
    for (uint32_t seed = 0; seed < 40; ++seed) {
      const std::vector<float> w = random_floats(kBlock, seed);
      uint16_t scales[kPanelRows];
      unsigned char codes[kBlock];
      float back[kBlock];
      reference::quantise_weights(storage, w.data(), scales, codes);
      reference::dequantise_weights(storage, scales, codes, back);
      for (size_t i = 0; i < w.size(); ++i) ours += std::pow(static_cast<double>(w[i]) - static_cast<double>(back[i]), 2);
      for (int64_t r = 0; r < kPanelRows; ++r) plain += static_cast<double>(plain_rounding_error(storage, w.data() + r));
    }
    INFO(name_of(storage), " squared error / plain rounding's: ", ours / plain);
    CHECK(ours / plain < (storage == Storage::int8 ? 0.92 : 0.80));

    std::vector<float> special(static_cast<size_t>(kBlock));
    for (int64_t k = 0; k < kGroup; ++k) {
      special[static_cast<size_t>(k * kPanelRows + 1)] = k == 5 ? INFINITY : 1.0F;
      special[static_cast<size_t>(k * kPanelRows + 2)] = std::numeric_limits<float>::denorm_min();
    }
    uint16_t scales[kPanelRows];
    unsigned char codes[kBlock];
    float back[kBlock];
    reference::quantise_weights(storage, special.data(), scales, codes);
    reference::dequantise_weights(storage, scales, codes, back);
    for (int64_t k = 0; k < kGroup; ++k) {
      CHECK(back[k * kPanelRows] == 0.0F);
      CHECK(std::isnan(back[k * kPanelRows + 1]));
      CHECK(back[k * kPanelRows + 2] == 0.0F);
    }
  }
}

TEST_CASE("packing quantised panels from any source type and reading rows back") {
  for (const Storage storage : kQuantised) {
    for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {16, 32}, {17, 33}, {33, 95}, {5, 96}, {20, 640}}) {
      const int64_t rows = shape.first;
      const int64_t inputs = shape.second;
      std::vector<float> w = random_floats(rows * inputs, 3);
      std::vector<uint16_t> bf16(w.size());
      for (size_t i = 0; i < w.size(); ++i) {
        bf16[i] = bf16_from_float(w[i]);
        w[i] = float_from_bf16(bf16[i]);
      }
      const auto bytes = static_cast<size_t>(panel_count(rows) * panel_bytes(storage, inputs));
      std::vector<unsigned char> from_f32(bytes, 0xFF);
      std::vector<unsigned char> from_bf16(bytes, 0xEE);
      const QuantiseWeights quantise = all_kernels()[0]->quantise_weights;
      pack_quantised_panels(Source::f32, w.data(), rows, inputs, storage, quantise, from_f32.data());
      pack_quantised_panels(Source::bf16, bf16.data(), rows, inputs, storage, quantise, from_bf16.data());
      CHECK(from_f32 == from_bf16);
      for (const CpuKernels* k : all_kernels()) {
        std::vector<float> row(static_cast<size_t>(inputs));
        for (int64_t r = 0; r < panel_count(rows) * kPanelRows; ++r) {
          k->unpack_row(storage, from_f32.data(), inputs, r, row.data());
          double lost = 0;
          double plain = 0;
          for (int64_t i = 0; i < inputs; ++i) {
            const float expected = r < rows ? w[static_cast<size_t>(r * inputs + i)] : 0.0F;
            const double off = std::abs(static_cast<double>(row[static_cast<size_t>(i)] - expected));
            lost += off * off;
            if (storage == Storage::int8 || r >= rows) REQUIRE(off <= (r < rows ? 0.02 : 0.0));
          }
          for (int64_t g = 0; g < group_count(inputs) && r < rows; ++g) {
            plain += static_cast<double>(plain_rounding_error(storage, group_of(w, inputs, r, g).data()));
          }
          CHECK(lost <= plain + 1e-4 * static_cast<double>(inputs));
        }
      }
    }
  }
}

TEST_CASE("scales within two octaves are kept as they are; of others little is lost") {
  constexpr int64_t kInputs = 512;
  for (const Storage storage : kQuantised) {
    for (const float spread : {1.0F, 4.0F, 30.0F, 1e4F, 1e12F}) {  // between an output's groups
      std::vector<float> w = random_floats(kPanelRows * kInputs, 12, 0.02F);
      for (int64_t r = 0; r < kPanelRows; ++r) {
        for (int64_t k = 0; k < kInputs; ++k) {
          const int64_t group = k / kGroup;
          w[static_cast<size_t>(r * kInputs + k)] *= std::pow(spread, -static_cast<float>((group * 7 + r) % 16) / 15.0F);
        }
      }
      const QuantisedPanel panel = quantise_panel(storage, kInputs, reference::quantise_weights, [&](int64_t g, float* to) {
        for (int64_t r = 0; r < kPanelRows; ++r) {
          const std::vector<float> group = group_of(w, kInputs, r, g);
          for (int64_t k = 0; k < kGroup; ++k) to[k * kPanelRows + r] = group[static_cast<size_t>(k * kPanelRows)];
        }
      });
      double lost = 0;
      double best = 0;  // with any scale
      for (int64_t g = 0; g < kInputs / kGroup; ++g) {
        float block[kBlock];
        uint16_t scales[kPanelRows];
        unsigned char codes[kBlock];
        float free[kBlock];
        float bound[kBlock];
        for (int64_t r = 0; r < kPanelRows; ++r) {
          const std::vector<float> group = group_of(w, kInputs, r, g);
          for (int64_t k = 0; k < kGroup; ++k) block[k * kPanelRows + r] = group[static_cast<size_t>(k * kPanelRows)];
        }
        reference::quantise_weights(storage, block, scales, codes);
        reference::dequantise_weights(storage, scales, codes, free);
        reference::dequantise_weights(storage, panel.scales.data() + g * kPanelRows, panel.codes.data() + g * kBlock, bound);
        if (spread == 1.0F) CHECK(std::memcmp(free, bound, sizeof free) == 0);
        for (int64_t i = 0; i < kBlock; ++i) {
          best += std::pow(static_cast<double>(block[i]) - static_cast<double>(free[i]), 2);
          lost += std::pow(static_cast<double>(block[i]) - static_cast<double>(bound[i]), 2);
        }
      }
      INFO(name_of(storage), " spread ", spread, ": ", lost / best);
      CHECK(lost / best < 1.06);
    }
  }
}

TEST_CASE("quantised gemm equals the reference, for every kernel path") {
  uint32_t seed = 0;
  for (const Storage storage : kQuantised) {
    for (const int64_t inputs : {1, 31, 32, 33, 64, 95, 512, 545, 1056}) {
      for (const int64_t outputs : {1, 15, 16, 50}) {
        const Layer layer = pack(random_floats(outputs * inputs, ++seed), outputs, inputs, storage);
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 13, 97, 100}) {
          if (rows > 13 && inputs > 600) continue;
          const std::vector<float> x = random_floats(rows * inputs, ++seed);
          std::vector<double> seen(x.size());
          std::vector<double> truth(static_cast<size_t>(rows * outputs));
          for (int64_t r = 0; r < rows; ++r) {
            reference::round_activations(storage, x.data() + r * inputs, inputs, seen.data() + r * inputs);
          }
          reference::add_product(seen.data(), rows, inputs, layer.values.data(), outputs, 1.0, truth.data());
          for (const CpuKernels* k : all_kernels()) {
            const std::vector<float> y = multiply(*k, layer, x, true);
            // Integer sums are exact; what is left is one rounding per group, and cancellation of the zero points.
            const double bound = 1e-6 * std::sqrt(static_cast<double>(inputs)) * (storage == Storage::int8 ? 8 : 16);
            for (size_t i = 0; i < y.size(); ++i) {
              if (!(std::abs(static_cast<double>(y[i]) - truth[i]) <= bound)) {
                FAIL(std::string(k->isa), " ", name_of(storage), " ", rows, " x ", inputs, " -> ", outputs, " at ", i,
                     ": ", y[i], " instead of ", truth[i]);
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the largest codes of all do not overflow") {
  for (const Storage storage : kQuantised) {
    const int64_t inputs = 64;
    std::vector<float> w(static_cast<size_t>(32 * inputs));
    for (size_t i = 0; i < w.size(); ++i) w[i] = i / static_cast<size_t>(inputs) % 2 != 0 ? 1.0F : -1.0F;
    for (size_t i = 0; i < w.size(); i += 32) w[i] *= -1.0F;  // so that the grid spans both signs
    const Layer layer = pack(w, 32, inputs, storage);
    for (const float sign : {1.0F, -1.0F}) {
      for (const int64_t rows : {1, 9, 17}) {
        const std::vector<float> x(static_cast<size_t>(rows * inputs), sign);
        for (const CpuKernels* k : all_kernels()) {
          const std::vector<float> y = multiply(*k, layer, x, true);
          for (size_t i = 0; i < y.size(); ++i) {
            double truth = 0;
            for (int64_t j = 0; j < inputs; ++j) {
              truth += static_cast<double>(sign * layer.values[i % 32 * static_cast<size_t>(inputs) + static_cast<size_t>(j)]);
            }
            CHECK(static_cast<double>(y[i]) == doctest::Approx(truth).epsilon(1e-5));
          }
        }
      }
    }
  }
}

TEST_CASE("a quantised row gets the same bits alone, in a crowd, with scratch or without") {
  for (const Storage storage : kQuantised) {
    const int64_t inputs = 777;
    const int64_t outputs = 83;
    const int64_t rows = 131;
    const Layer layer = pack(random_floats(outputs * inputs, 1), outputs, inputs, storage);
    const std::vector<float> x = random_floats(rows * inputs, 2);
    for (const CpuKernels* k : all_kernels()) {
      const std::vector<float> all = multiply(*k, layer, x, true);
      for (const int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 20, 25, 64, 97, 131}) {
        for (const bool with_scratch : {true, false}) {
          const int64_t first = (rows - count) / 2;
          const std::vector<float> some = multiply(*k, layer, rows_of(x, inputs, first, count), with_scratch);
          INFO(k->isa, " ", name_of(storage), " rows ", count);
          CHECK(same_bits(some.data(), all.data() + first * outputs, some.size()));
        }
      }
    }
  }
}

TEST_CASE("the tile unit gives the bits that vectors give") {
  const CpuKernels* tiles = tile_kernels();
  if (tiles == nullptr) return;
  const CpuKernels* vectors = find_kernels("avx512");
  REQUIRE(vectors != nullptr);
  for (const Storage storage : kQuantised) {
    for (const int64_t inputs : {32, 33, 545, 1056}) {
      const Layer layer = pack(random_floats(50 * inputs, 1), 50, inputs, storage);
      for (const int64_t rows : {15, 16, 31, 33, 96, 113}) {
        const std::vector<float> x = random_floats(rows * inputs, 2);
        const std::vector<float> y = multiply(*tiles, layer, x, true);
        INFO(name_of(storage), " ", rows, " x ", inputs);
        CHECK(same_bits(y.data(), multiply(*vectors, layer, x, true).data(), y.size()));
      }
    }
  }
}

TEST_CASE("quantised gemm writes its panels only, scales, and adds where told") {
  const int64_t inputs = 70;
  const int64_t outputs = 60;
  for (const Storage storage : kQuantised) {
    const Layer layer = pack(random_floats(outputs * inputs, 1), outputs, inputs, storage);
    for (const int64_t rows : {1, 2, 9, 24}) {
      const std::vector<float> x = random_floats(rows * inputs, 2);
      for (const CpuKernels* k : all_kernels()) {
        const std::vector<float> plain = multiply(*k, layer, x, true);
        const std::vector<unsigned char> codes = codes_of(*k, storage, x, inputs);
        std::vector<float> work = scratch();
        std::vector<float> y(plain.size(), 7.0F);
        GemmArgs args{};
        args.panels = layer.panels.data();
        args.outputs = outputs;
        args.inputs = inputs;
        args.panel_begin = 1;
        args.panel_end = 3;
        args.prepared = codes.data();
        args.rows = rows;
        args.y = y.data();
        args.y_stride = outputs;
        args.scale = -2.0F;
        args.accumulate = true;
        args.scratch = work.data();
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

TEST_CASE("activations: zeros, tiny ones and what is not finite") {
  const int64_t inputs = 96;
  for (const Storage storage : kQuantised) {
    const Layer layer = pack(random_floats(20 * inputs, 1), 20, inputs, storage);
    for (const CpuKernels* k : all_kernels()) {
      for (const int64_t rows : {1, 6}) {
        std::vector<float> x(static_cast<size_t>(rows * inputs), 0.0F);
        for (const float value : multiply(*k, layer, x, true)) CHECK(value == 0.0F);
        std::fill(x.begin(), x.end(), std::numeric_limits<float>::denorm_min());
        for (const float value : multiply(*k, layer, x, true)) CHECK(value == 0.0F);
        std::fill(x.begin(), x.end(), 1e30F);
        for (const float value : multiply(*k, layer, x, true)) CHECK(std::isfinite(value));
        for (const float bad : {INFINITY, -INFINITY, NAN}) {
          x = random_floats(rows * inputs, 3);
          x[40] = bad;  // of the first row
          const std::vector<float> y = multiply(*k, layer, x, true);
          for (size_t i = 0; i < y.size(); ++i) CHECK(std::isfinite(y[i]) == (i >= 20));
        }
      }
    }
  }
}
