// Backend::linear with every field of LinearDelta, against the reference backend and against itself row by row.
#include <doctest/doctest.h>

#include <array>

#include "backend_support.h"

using namespace expert;
using namespace expert::test;

namespace {

// What one linear layer is made of, on the host, so that several backends can be given the same.
struct Layer {
  int64_t in, out;
  WeightFormat format;
  uint32_t seed;

  std::vector<float> values(uint32_t which, int64_t count, float spread = 1.0F) const {
    return random_floats(static_cast<size_t>(count), seed * 131 + which, spread);
  }
  MatrixPtr weight(Backend& b) const { return to_matrix(b, values(1, in * out), out, in, format); }
  Tensor bias(Backend& b) const { return to_tensor(b, values(2, out), 1, out); }
  LowRankTerm low_rank(Backend& b, uint32_t which, int64_t rank, float w) const {
    return to_low_rank(b, values(which, rank * in), values(which + 1, out * rank, 0.1F), in, out, rank, expert_format(format), w);
  }
  Tensor vector(Backend& b, uint32_t which, int64_t count) const {
    return to_tensor(b, values(which, count), 1, count);
  }
};

constexpr WeightFormat kFormats[] = {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};

enum Fields : unsigned {
  kLowRank = 1,
  kDense = 2,
  kInputScale = 4,
  kOutputScale = 8,
  kBias = 16,
  kResultScale = 32,
  kSkip = 64
};

LinearDelta make_delta(Backend& b, const Layer& layer, unsigned fields, uint32_t which) {
  LinearDelta delta;
  if (fields & kLowRank) {
    delta.low_rank.push_back(layer.low_rank(b, which + 10, 16, 0.75F));
    delta.low_rank.push_back(layer.low_rank(b, which + 20, 5, -1.5F));
  }
  if (fields & kDense)
    delta.dense.push_back({to_matrix(b, layer.values(which + 30, layer.in * layer.out), layer.out, layer.in,
                                     expert_format(layer.format)),
                           0.5F});
  if (fields & kInputScale) delta.input_scale = layer.vector(b, which + 40, layer.in);
  if (fields & kOutputScale) delta.output_scale = layer.vector(b, which + 50, layer.out);
  if (fields & kBias) delta.bias = layer.vector(b, which + 60, layer.out);
  if (fields & kResultScale) delta.result_scale = layer.vector(b, which + 70, layer.out);
  delta.skip_base = (fields & kSkip) != 0;
  return delta;
}

struct Part {
  int32_t first, count;
  unsigned fields;
};

// A layer in the memory of one backend, with what the parts of a batch of `rows` rows add to it.
struct Placed {
  Placed(Backend& backend, const Layer& layer, std::vector<Part> of_batch, int64_t rows)
      : b(backend),
        out(layer.out),
        parts(std::move(of_batch)),
        weight(layer.weight(b)),
        bias(layer.bias(b)),
        input(to_tensor(b, layer.values(3, rows * layer.in), rows, layer.in)) {
    for (const Part& part : parts) deltas.push_back(make_delta(b, layer, part.fields, part.fields * 100));
  }

  Backend& b;
  int64_t out;
  std::vector<Part> parts;
  MatrixPtr weight;
  Tensor bias;
  Tensor input;
  std::vector<LinearDelta> deltas;
};

// Rows [first, first + count) of the batch through the layer.
std::vector<float> run(const Placed& placed, bool with_bias, int64_t first, int64_t count) {
  const auto& [b, out, parts, weight, bias, input, deltas] = placed;
  const Tensor x = input.row_range(first, count);
  std::vector<SegmentDelta> segments;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t from = std::max<int64_t>(parts[i].first, first);
    const int64_t to = std::min<int64_t>(parts[i].first + parts[i].count, first + count);
    if (from < to)
      segments.push_back({static_cast<int32_t>(from - first), static_cast<int32_t>(to - from), &deltas[i]});
  }
  const Tensor y = b.allocate(DType::f32, count, out);
  const LinearOutput output{weight.get(), with_bias ? &bias : nullptr, y, segments};
  b.linear(x, {&output, 1});
  return to_vector(b, y);
}

std::vector<float> run(Backend& b, const Layer& layer, bool with_bias, const std::vector<Part>& parts, int64_t rows,
                       int64_t first, int64_t count) {
  return run(Placed(b, layer, parts, rows), with_bias, first, count);
}

}  // namespace

TEST_CASE("linear equals the reference on awkward shapes") {
  const auto reference = make_backend({"reference", 0, ""});
  const auto backends = cpu_backends();
  REQUIRE(!backends.empty());
  uint32_t seed = 0;
  for (const WeightFormat format : kFormats) {
    for (const int64_t in : {1, 2, 15, 511, 512, 513, 1100}) {
      for (const int64_t out : {1, 16, 17, 70}) {
        const Layer layer{in, out, format, ++seed};
        for (const int64_t rows : {1, 2, 3, 5, 6, 7, 17, 200}) {
          if (rows == 200 && in > (thorough() ? 600 : 20)) continue;
          const std::vector<float> truth = run(*reference, layer, true, {}, rows, 0, rows);
          for (const auto& backend : backends) {
            INFO(name_of(*backend), " ", name_of(format), " ", rows, " x ", in, " -> ", out);
            const double scale = is_quantised(format) ? std::sqrt(static_cast<double>(in)) : 0;
            CHECK(relative_error(run(*backend, layer, true, {}, rows, 0, rows), truth, scale) < 2e-6);
          }
        }
      }
    }
  }
}

TEST_CASE("every field of a delta, alone and together, equals the reference") {
  const auto reference = make_backend({"reference", 0, ""});
  const auto backends = cpu_backends();
  for (const WeightFormat format : kFormats) {
    const Layer layer{75, 83, format, 7};
    for (const unsigned fields : {0U, 1U, 2U, 4U, 8U, 16U, 32U, 64U, 64U | 2U, 63U, 127U, 8U | 16U, 4U | 1U}) {
      for (const bool bias : {false, true}) {
        const std::vector<Part> parts = {{1, 2, fields}, {4, 1, 1U}, {6, 3, fields ^ 5U}};
        const std::vector<float> truth = run(*reference, layer, bias, parts, 9, 0, 9);
        for (const auto& backend : backends) {
          INFO(name_of(*backend), " fields ", fields, " bias ", bias);
          CHECK(relative_error(run(*backend, layer, bias, parts, 9, 0, 9), truth) < 2e-6);
        }
      }
    }
  }
}

TEST_CASE("a row gets the same bits alone, in any batch and with any number of threads") {
  for (const char* isa : kIsas) {
    const std::unique_ptr<Backend> one = backend_on(isa, 1);
    if (!one) continue;
    const auto two = backend_on(isa, 2);
    const auto three = backend_on(isa, 3);
    for (const WeightFormat format : kFormats) {
      const Layer layer{521, 330, format, 11};
      const std::vector<Part> parts = {{0, 3, 1U}, {3, 9, 127U}, {15, 7, 61U}, {30, 1, 63U}};
      const int64_t rows = 37;
      const std::vector<float> all = run(*one, layer, true, parts, rows, 0, rows);
      CHECK(same_bits(run(*two, layer, true, parts, rows, 0, rows), all));
      const Placed placed(*three, layer, parts, rows);
      CHECK(same_bits(run(placed, true, 0, rows), all));
      for (const int64_t chunk : {1, 2, 5, 13}) {
        for (int64_t r = 0; r < rows; r += chunk) {
          const int64_t count = std::min(chunk, rows - r);
          const std::vector<float> some = run(placed, true, r, count);
          INFO(isa, " ", name_of(format), " rows ", r, " + ", count);
          CHECK(same_bits(some.data(), all.data() + r * layer.out, some.size()));
        }
      }
    }
  }
}

TEST_CASE("several outputs of one call equal separate calls") {
  for (const auto& backend : cpu_backends()) {
    const Layer layers[3] = {
        {96, 200, WeightFormat::bf16, 1}, {96, 40, WeightFormat::bf16, 2}, {96, 1, WeightFormat::bf16, 3}};
    const Tensor x = to_tensor(*backend, layers[0].values(3, 4 * 96), 4, 96);
    std::vector<MatrixPtr> weights;
    std::vector<LinearDelta> deltas;
    std::vector<std::vector<SegmentDelta>> segments;
    std::vector<LinearOutput> outputs;
    for (const Layer& layer : layers) {
      weights.push_back(layer.weight(*backend));
      deltas.push_back(make_delta(*backend, layer, kLowRank | kInputScale, 5));
    }
    for (size_t i = 0; i < 3; ++i) segments.push_back({{1, 2, &deltas[i]}});
    for (size_t i = 0; i < 3; ++i) {
      outputs.push_back({weights[i].get(), nullptr, backend->allocate(DType::f32, 4, layers[i].out), segments[i]});
    }
    backend->linear(x, outputs);
    for (size_t i = 0; i < 3; ++i) {
      const std::vector<float> together = to_vector(*backend, outputs[i].y);
      LinearOutput alone = outputs[i];
      alone.y = backend->allocate(DType::f32, 4, layers[i].out);
      backend->linear(x, {&alone, 1});
      CHECK(same_bits(to_vector(*backend, alone.y), together));
    }
  }
}

TEST_CASE("gated equals linear and swiglu, and what reads it next gets the same bits") {
  for (const auto& backend : cpu_backends()) {
    Backend& b = *backend;
    for (const WeightFormat format : kFormats) {
      for (const int64_t width : {1, 70, 300}) {
        const Layer gate{96, width, format, 1}, up{96, width, format, 2}, down{width, 40, format, 3};
        const MatrixPtr weights[] = {gate.weight(b), up.weight(b), down.weight(b)};
        const LinearDelta deltas[] = {make_delta(b, gate, kLowRank | kResultScale, 5), make_delta(b, up, kLowRank, 6)};
        for (const int64_t rows : {1, 3, 40}) {
          INFO(name_of(b), " ", name_of(format), " ", rows, " x ", width);
          const Tensor x = to_tensor(b, gate.values(3, rows * 96), rows, 96);
          const auto some = [&](int64_t cols) { return b.allocate(DType::f32, rows, cols); };
          const SegmentDelta bent[] = {{0, 1, &deltas[0]}, {0, 1, &deltas[1]}};
          const auto outputs = [&] {
            return std::array<LinearOutput, 2>{{{weights[0].get(), nullptr, some(width), {&bent[0], 1}},
                                                {weights[1].get(), nullptr, some(width), {&bent[1], 1}}}};
          };
          const auto projected = [&](const Tensor& from) {
            const LinearOutput output{weights[2].get(), nullptr, some(40), {}};
            b.linear(from, {&output, 1});
            return to_vector(b, output.y);
          };
          const auto apart = outputs();
          const Tensor expected = some(width);
          b.linear(x, apart);
          b.swiglu(apart[0].y, apart[1].y, expected);
          const std::vector<float> values = to_vector(b, expected);
          const std::vector<float> next = projected(to_tensor(b, values, rows, width));

          const auto together = outputs();
          b.gated(x, together[0], together[1], together[0].y);
          REQUIRE(same_bits(projected(together[0].y), next));
          REQUIRE(same_bits(to_vector(b, together[0].y), values));
          REQUIRE(same_bits(projected(together[0].y), next));

          // Written, or another one made, between them.
          const auto other = outputs();
          b.gated(x, other[0], other[1], other[0].y);
          b.add(other[0].y, expected);
          const std::vector<float> after = projected(other[0].y);
          const std::vector<float> doubled = to_vector(b, other[0].y);
          REQUIRE(same_bits(after, projected(to_tensor(b, doubled, rows, width))));
          const auto third = outputs();
          b.gated(x, third[0], third[1], third[1].y);
          b.gated(x, other[0], other[1], other[0].y);
          REQUIRE(same_bits(projected(third[1].y), next));
          b.gated(x, other[0], other[1], other[0].y);
          b.upload(other[0].y, doubled.data(), doubled.size() * sizeof(float));
          REQUIRE(same_bits(projected(other[0].y), after));
        }
      }
    }
  }
}

TEST_CASE("a full matrix at weight 1 over a skipped base is exactly that matrix") {
  for (const auto& backend : cpu_backends()) {
    const Layer base{130, 50, WeightFormat::bf16, 4};
    const Layer own{130, 50, WeightFormat::f32, 5};
    LinearDelta delta;
    delta.dense.push_back({own.weight(*backend), 1.0F});
    delta.skip_base = true;
    const SegmentDelta segment{0, 6, &delta};
    const Tensor x = to_tensor(*backend, base.values(3, 6 * 130), 6, 130);
    const MatrixPtr w = base.weight(*backend);
    const LinearOutput bent{w.get(), nullptr, backend->allocate(DType::f32, 6, 50), {&segment, 1}};
    const LinearOutput plain{delta.dense[0].d.get(), nullptr, backend->allocate(DType::f32, 6, 50), {}};
    backend->linear(x, {&bent, 1});
    backend->linear(x, {&plain, 1});
    CHECK(same_bits(to_vector(*backend, bent.y), to_vector(*backend, plain.y)));
  }
}

namespace {

// `narrow`: inputs and ranks whose factors may be in 12 bits.
void check_ten_experts(int64_t kIn, bool narrow) {
  const auto reference = make_backend({"reference", 0, ""});
  constexpr int64_t kOut[] = {70, 33, 16};
  const auto run_all = [&](Backend& backend, int64_t first, int64_t rows) {
    const Layer shared{kIn, 1, WeightFormat::bf16, 21};
    const Tensor x = to_tensor(backend, shared.values(3, 9 * kIn), 9, kIn).row_range(first, rows);
    std::vector<float> all;
    std::vector<MatrixPtr> weights;
    std::vector<LinearDelta> deltas(3);
    std::vector<SegmentDelta> segments(3);
    std::vector<LinearOutput> outputs;
    for (size_t o = 0; o < 3; ++o) {
      for (uint32_t expert = 0; expert < 10; ++expert) {
        const WeightFormat format = expert % 3 == 0 ? WeightFormat::f32 : WeightFormat::bf16;
        const Layer layer{kIn, kOut[o], format, 40 + expert};
        const int64_t rank = narrow ? 8 + 8 * (expert % 4) : 1 + expert * expert % 19;
        deltas[o].low_rank.push_back(layer.low_rank(backend, 10, rank, 0.1F * float(expert) - 0.3F));
      }
      const Layer layer{kIn, kOut[o], WeightFormat::bf16, 30};
      if (o == 1) deltas[o].output_scale = layer.vector(backend, 5, kOut[o]);
      if (o == 2) deltas[o].input_scale = layer.vector(backend, 6, kIn);
      weights.push_back(layer.weight(backend));
      segments[o] = {0, static_cast<int32_t>(rows), &deltas[o]};
      outputs.push_back(
          {weights[o].get(), nullptr, backend.allocate(DType::f32, rows, kOut[o]), {&segments[o], 1}});
    }
    backend.linear(x, outputs);
    for (const LinearOutput& output : outputs) {
      const std::vector<float> y = to_vector(backend, output.y);
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  };
  const std::vector<float> truth = run_all(*reference, 0, 9);
  for (const auto& backend : cpu_backends()) {
    INFO(name_of(*backend));
    const std::vector<float> all = run_all(*backend, 0, 9);
    CHECK(relative_error(all, truth) < 2e-6);
    for (int64_t row = 0; row < 9; ++row) {
      const std::vector<float> one = run_all(*backend, row, 1);
      int64_t at = 0;
      int64_t from = 0;
      for (const int64_t out : kOut) {
        CHECK(same_bits(one.data() + from, all.data() + at + row * out, static_cast<size_t>(out)));
        from += out;
        at += 9 * out;
      }
    }
  }
}

}  // namespace

TEST_CASE("ten experts of mixed ranks and formats on sibling projections equal the reference, row by row too") {
  check_ten_experts(130, false);
  check_ten_experts(256, true);
}

TEST_CASE("factors are narrow where their values allow it, and right either way") {
  constexpr int64_t kIn = 256;
  constexpr int64_t kOut = 100;
  constexpr int64_t kRank = 16;
  const auto reference = make_backend({"reference", 0, ""});
  const std::vector<float> tame = random_floats(kIn * kRank, 1);
  std::vector<float> wild = tame;
  for (size_t i = 0; i < wild.size(); i += 7) wild[i] *= 1e-7F;
  for (const bool narrow : {true, false}) {
    const auto run = [&](Backend& backend, size_t& bytes) {
      LinearDelta delta;
      delta.skip_base = true;
      delta.low_rank.push_back(to_low_rank(backend, narrow ? tame : wild, random_floats(kOut * kRank, 2), kIn, kOut, kRank,
                                           WeightFormat::bf16, 0.5F));
      bytes = delta.low_rank[0].a->size_bytes();
      const SegmentDelta segment{0, 20, &delta};
      const MatrixPtr w = to_matrix(backend, random_floats(kOut * kIn, 3), kOut, kIn, WeightFormat::bf16);
      const LinearOutput output{w.get(), nullptr, backend.allocate(DType::f32, 20, kOut), {&segment, 1}};
      backend.linear(to_tensor(backend, random_floats(20 * kIn, 4), 20, kIn), {&output, 1});
      return to_vector(backend, output.y);
    };
    size_t bytes = 0;
    const std::vector<float> truth = run(*reference, bytes);
    for (const auto& backend : cpu_backends()) {
      CAPTURE(name_of(*backend));
      CHECK(relative_error(run(*backend, bytes), truth) < 2e-6);
      if (backend->info().layout == "panel16-narrow-2") CHECK((bytes < size_t{kIn} * kRank * 2) == narrow);
    }
  }
}
