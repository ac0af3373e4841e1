// Backend::walk(): what the threads of a backend make of a layer together has the bits that it has when one calls for all.
#include <doctest/doctest.h>

#include <stdexcept>

#include "backend_support.h"

namespace {

using namespace expert;
using namespace expert::test;

constexpr int64_t kHidden = 96;
constexpr int64_t kWide = 160;
constexpr int32_t kHeads = 4;
constexpr int32_t kKvHeads = 2;
constexpr int32_t kHeadDim = 32;
constexpr int64_t kQ = int64_t{kHeads} * kHeadDim;
constexpr int64_t kKv = int64_t{kKvHeads} * kHeadDim;
constexpr int32_t kPositions = 2080;  // more than two splits of attention
constexpr int32_t kBlocks = kPositions / kKvBlockTokens;
constexpr int32_t kMostRows = 3;

uint32_t next_seed = 1;

struct Site {
  MatrixPtr weight;
  Tensor bias;
  LinearDelta delta;
};

// All that a delta can have.
Site site(Backend& backend, int64_t in, int64_t out, WeightFormat format, bool everything) {
  const auto vector = [&](int64_t size) {
    return to_tensor(backend, random_floats(static_cast<size_t>(size), next_seed++), 1, size);
  };
  const auto values = [&](int64_t count) { return random_floats(static_cast<size_t>(count), next_seed++, 0.1F); };
  Site site;
  site.weight = to_matrix(backend, values(in * out), out, in, format);
  for (const int64_t rank : {16, 3, 8}) {
    site.delta.low_rank.push_back(to_low_rank(backend, values(in * rank), values(out * rank), in, out, rank, WeightFormat::bf16,
                                              0.5F));
  }
  if (!everything) return site;
  site.bias = vector(out);
  site.delta.input_scale = vector(in);
  site.delta.output_scale = vector(out);
  site.delta.result_scale = vector(out);
  site.delta.bias = vector(out);
  site.delta.dense.push_back({to_matrix(backend, values(in * out), out, in, WeightFormat::bf16), 0.25F});
  return site;
}

// A layer and its memory; what all threads write stands apart from what each has for itself.
struct Layer {
  Layer(Backend& b, int32_t row_count, WeightFormat format, DType kv_type)
      : backend(b), rows(row_count), kv(b.create_kv({1, kKvHeads, kHeadDim, kMostRows * kBlocks, kv_type})) {
    next_seed = 1;
    q = site(b, kHidden, kQ, format, true);
    k = site(b, kHidden, kKv, format, false);
    v = site(b, kHidden, kKv, format, false);
    o = site(b, kQ, kHidden, format, false);
    gate = site(b, kHidden, kWide, format, true);
    up = site(b, kHidden, kWide, format, false);
    down = site(b, kWide, kHidden, format, true);
    norm = to_tensor(b, random_floats(kHidden, next_seed++), 1, kHidden);
    rope = {to_tensor(b, random_floats(kPositions * kHeadDim / 2, next_seed++), kPositions, kHeadDim / 2),
            to_tensor(b, random_floats(kPositions * kHeadDim / 2, next_seed++), kPositions, kHeadDim / 2), kHeadDim};
    for (int32_t r = 0; r < kMostRows; ++r) {
      blocks.emplace_back();
      for (int32_t i = 0; i < kBlocks; ++i) blocks.back().push_back(r * kBlocks + i);
    }
    q_out = b.allocate(DType::f32, rows, kQ);
    k_out = b.allocate(DType::f32, rows, kKv);
    v_out = b.allocate(DType::f32, rows, kKv);
    attended = b.allocate(DType::f32, rows, kQ);
    branch = b.allocate(DType::f32, rows, kHidden);
    wide = b.allocate(DType::f32, rows, kWide);
    wide_too = b.allocate(DType::f32, rows, kWide);
    for (int i = 0; i < b.info().threads; ++i) {
      x.push_back(b.allocate(DType::f32, rows, kHidden));
      normed.push_back(b.allocate(DType::f32, rows, kHidden));
    }
  }

  LinearOutput output(const Site& site, const Tensor& y, SegmentDelta& part) const {
    // Of several rows the first is the base's.
    const int32_t first = rows > 1 ? 1 : 0;
    part = {first, rows - first, &site.delta};
    return {site.weight.get(), site.bias ? &site.bias : nullptr, y, {&part, 1}};
  }

  void pass(Operations& ops, int walker, const BatchLayout& layout) const {
    const Tensor& own = x[static_cast<size_t>(walker)];
    const Tensor& in = normed[static_cast<size_t>(walker)];
    SegmentDelta parts[3];
    ops.rms_norm(own, norm, 1e-6F, in);
    const LinearOutput heads[] = {output(q, q_out, parts[0]), output(k, k_out, parts[1]), output(v, v_out, parts[2])};
    ops.linear(in, heads);
    AttentionOp op;
    op.q = q_out;
    op.k = k_out;
    op.v = v_out;
    op.rope = &rope;
    op.kv = kv.get();
    op.heads = kHeads;
    op.kv_heads = kKvHeads;
    op.head_dim = kHeadDim;
    op.scale = 0.2F;
    op.out = attended;
    ops.attention(layout, op);
    const LinearOutput projected = output(o, branch, parts[0]);
    ops.linear(attended, {&projected, 1});
    ops.add(own, branch);
    ops.rms_norm(own, norm, 1e-6F, in);
    ops.gated(in, output(gate, wide, parts[0]), output(up, wide_too, parts[1]), wide);
    const LinearOutput back = output(down, branch, parts[0]);
    ops.linear(wide, {&back, 1});
    ops.add(own, branch);
  }

  // Two passes over rows that start at `position` of one request, or are one of each of several.
  std::vector<float> run(int32_t position, bool apart, bool walking) {
    BatchLayout layout;
    for (int32_t r = 0; r < rows; ++r) layout.positions.push_back(apart ? position : position + r);
    layout.token_ids.assign(static_cast<size_t>(rows), 0);
    if (apart) {
      for (int32_t r = 0; r < rows; ++r) layout.segments.push_back({r, 1, position, blocks[static_cast<size_t>(r)]});
    } else {
      layout.segments.push_back({0, rows, position, blocks.front()});
    }
    const std::vector<float> first = random_floats(static_cast<size_t>(rows * kHidden), 77);
    for (const Tensor& own : x) backend.upload(own, first.data(), first.size() * sizeof(float));
    for (int times = 0; times < 2; ++times) {
      if (!walking) {
        pass(backend, 0, layout);
      } else {
        walk([&](Operations& ops, int walker) { pass(ops, walker, layout); });
        for (const Tensor& own : x) CHECK(same_bits(to_vector(backend, own), to_vector(backend, x.front())));
      }
    }
    return to_vector(backend, x.front());
  }

  // As soon as it may: with more threads than cores a walk is long, and the next ones are not begun.
  void walk(const std::function<void(Operations&, int)>& task) {
    for (int tries = 0; tries < 100'000; ++tries) {
      if (backend.walk(task)) return;
    }
    FAIL("no walk was begun");
  }

  Backend& backend;
  int32_t rows;
  std::unique_ptr<KvStorage> kv;
  Site q, k, v, o, gate, up, down;
  Tensor norm;
  RopeTable rope;
  std::vector<std::vector<int32_t>> blocks;  // of each request
  Tensor q_out, k_out, v_out, attended, branch, wide, wide_too;
  std::vector<Tensor> x, normed;  // of each walker
};

}  // namespace

TEST_CASE("a walk gives the bits of operations that one thread calls") {
  for (const char* isa : kIsas) {
    const auto backend = backend_on(isa, 3);
    if (!backend) continue;
    CAPTURE(name_of(*backend));
    REQUIRE(backend->walkers(1) == 3);
    CHECK(backend->walkers(1000) == 1);
    for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      for (const DType kv : {DType::bf16, DType::i8}) {
        for (const int32_t rows : {1, kMostRows}) {
          for (const int32_t position : {0, 70, 2060}) {
            if (!thorough() && position == 70) continue;
            for (const bool apart : {false, true}) {
              if (apart && rows == 1) continue;  // the same
              Layer one(*backend, rows, format, kv);
              const std::vector<float> expected = one.run(position, apart, false);
              Layer other(*backend, rows, format, kv);
              INFO(std::string(name_of(format)), " rows ", rows, " position ", position, " apart ", apart);
              REQUIRE(same_bits(other.run(position, apart, true), expected));
              REQUIRE(same_bits(other.run(position, apart, false), one.run(position, apart, false)));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("an error on a walk reaches the caller, and the backend goes on") {
  const auto backend = make_backend({"cpu", 3, ""});
  Layer layer(*backend, 1, WeightFormat::int4, DType::bf16);
  const std::vector<float> expected = layer.run(5, false, false);
  BatchLayout layout;
  layout.token_ids = {0};
  layout.positions = {5};
  layout.segments.push_back({0, 1, 5, layer.blocks.front()});
  for (int failing = 0; failing < 3; ++failing) {
    CHECK_THROWS_WITH_AS(layer.walk([&](Operations& ops, int walker) {
      layer.pass(ops, walker, layout);
      if (walker == failing) throw std::runtime_error("in the middle");
      layer.pass(ops, walker, layout);
    }), "in the middle", std::runtime_error);
    CHECK(same_bits(layer.run(5, false, true), expected));
    CHECK(same_bits(layer.run(5, false, false), expected));
  }
}

TEST_CASE("with one thread, or on a device of its own, nobody walks") {
  const auto alone = make_backend({"cpu", 1, ""});
  CHECK(alone->walkers(1) == 1);
  CHECK_FALSE(alone->walk([](Operations&, int) { FAIL("begun"); }));
  const auto reference = make_backend({"reference", 0, ""});
  CHECK(reference->walkers(1) == 1);
  CHECK_FALSE(reference->walk([](Operations&, int) { FAIL("begun"); }));
}
