// Backend::attention: norm, rotation, KV cache and softmax, against the reference and against other ways to cut a
// prompt.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "backend_support.h"

using namespace expert;
using namespace expert::test;

namespace {

struct Shape {
  int32_t heads, kv_heads, head_dim, rotary_dim;
  bool norms;
  DType kv;
};

// A model's attention fed with random q, k, v for `tokens` positions of a few requests.
class Attention {
 public:
  Attention(Backend& backend, const Shape& shape, int32_t tokens, int32_t requests)
      : backend_(backend), shape_(shape), tokens_(tokens), requests_(requests), blocks_((tokens + 15) / 16) {
    kv_ = backend.create_kv({2, shape.kv_heads, shape.head_dim, blocks_ * requests, shape.kv});
    const int32_t half = shape.rotary_dim / 2;
    std::vector<float> angles = random_floats(static_cast<size_t>(tokens * half), 5, 3.0F);
    std::vector<float> cos(angles.size());
    std::vector<float> sin(angles.size());
    for (size_t i = 0; i < angles.size(); ++i) {
      cos[i] = std::cos(angles[i]);
      sin[i] = std::sin(angles[i]);
    }
    rope_ = {to_tensor(backend, cos, tokens, half), to_tensor(backend, sin, tokens, half), shape.rotary_dim};
    q_norm_ = to_tensor(backend, random_floats(static_cast<size_t>(shape.head_dim), 6), 1, shape.head_dim);
    k_norm_ = to_tensor(backend, random_floats(static_cast<size_t>(shape.head_dim), 7), 1, shape.head_dim);
  }

  struct Chunk {
    int32_t request, first, count;
  };

  // Runs the chunks as one batch; returns their output rows. Keys and values are NaN from position `poison` on.
  std::vector<float> run(const std::vector<Chunk>& chunks, int32_t poison = INT32_MAX) {
    return to_vector(backend_, attend(chunks, poison));
  }

  Tensor attend(const std::vector<Chunk>& chunks, int32_t poison = INT32_MAX) {
    BatchLayout layout;
    std::vector<std::vector<int32_t>> tables(chunks.size());
    std::vector<float> q, k, v;
    int32_t rows = 0;
    for (const Chunk& chunk : chunks) {
      Segment segment{rows, chunk.count, chunk.first, {}};
      // Blocks of a request are scattered: the table is the truth.
      std::vector<int32_t>& table = tables[layout.segments.size()];
      for (int32_t b = 0; b < blocks_; ++b) table.push_back((blocks_ - 1 - b) * requests_ + chunk.request);
      segment.block_table = table;
      layout.segments.push_back(segment);
      append(q, chunk, 1, shape_.heads);
      append(k, chunk, 2, shape_.kv_heads);
      append(v, chunk, 3, shape_.kv_heads);
      for (int32_t i = std::max(0, poison - chunk.first); i < chunk.count; ++i) {
        const auto row = static_cast<int64_t>(shape_.kv_heads * shape_.head_dim);
        std::fill_n(k.begin() + (rows + i) * row, row, NAN);
        std::fill_n(v.begin() + (rows + i) * row, row, NAN);
      }
      rows += chunk.count;
    }
    AttentionOp op;
    op.q = to_tensor(backend_, q, rows, shape_.heads * shape_.head_dim);
    op.k = to_tensor(backend_, k, rows, shape_.kv_heads * shape_.head_dim);
    op.v = to_tensor(backend_, v, rows, shape_.kv_heads * shape_.head_dim);
    op.out = backend_.allocate(DType::f32, rows, shape_.heads * shape_.head_dim);
    op.q_norm = shape_.norms ? &q_norm_ : nullptr;
    op.k_norm = shape_.norms ? &k_norm_ : nullptr;
    op.norm_eps = 1e-6F;
    op.rope = &rope_;
    op.kv = kv_.get();
    op.layer = 1;
    op.heads = shape_.heads;
    op.kv_heads = shape_.kv_heads;
    op.head_dim = shape_.head_dim;
    op.scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_dim));
    backend_.attention(layout, op);
    return op.out;
  }

  size_t row_size() const { return static_cast<size_t>(shape_.heads * shape_.head_dim); }

 private:
  void append(std::vector<float>& to, const Chunk& chunk, uint32_t which, int32_t heads) {
    const size_t row = static_cast<size_t>(heads * shape_.head_dim);
    const uint32_t seed = 100 * which + static_cast<uint32_t>(chunk.request);
    std::vector<float>& all = values_[seed];
    if (all.empty()) all = random_floats(static_cast<size_t>(tokens_) * row, seed, 1.5F);
    to.insert(to.end(), all.begin() + chunk.first * static_cast<int64_t>(row),
              all.begin() + (chunk.first + chunk.count) * static_cast<int64_t>(row));
  }

  Backend& backend_;
  Shape shape_;
  int32_t tokens_, requests_, blocks_;
  std::unique_ptr<KvStorage> kv_;
  RopeTable rope_;
  Tensor q_norm_, k_norm_;
  std::map<uint32_t, std::vector<float>> values_;  // q, k and v of a request, by seed
};

std::vector<float> in_chunks(Attention& attention, int32_t tokens, int32_t size) {
  std::vector<float> out;
  for (int32_t first = 0; first < tokens; first += size) {
    const std::vector<float> part = attention.run({{0, first, std::min(size, tokens - first)}});
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

}  // namespace

TEST_CASE("attention equals the reference for head sizes, groups and lengths") {
  const auto reference = make_backend({"reference", 0, ""});
  const auto backends = cpu_backends();
  REQUIRE(!backends.empty());
  const std::vector<Shape> shapes = {{2, 2, 16, 16, true, DType::f32},   {4, 2, 64, 64, false, DType::bf16},
                                     {3, 1, 80, 80, true, DType::f32},   {8, 1, 128, 128, true, DType::bf16},
                                     {7, 7, 20, 10, false, DType::f32},  {5, 1, 256, 64, true, DType::bf16},
                                     {6, 2, 33, 32, false, DType::bf16}, {64, 1, 8, 8, false, DType::f32},
                                     {4, 2, 64, 64, true, DType::i8},     {3, 1, 20, 20, false, DType::i8},
                                     {12, 1, 128, 128, false, DType::i8}, {2, 2, 33, 32, true, DType::i8}};
  for (const Shape& shape : shapes) {
    for (const int32_t tokens : {1, 2, 15, 16, 17, 63, 64, 65, 150}) {
      if (!thorough() && (tokens == 2 || tokens == 15 || tokens == 64)) continue;
      Attention truth(*reference, shape, tokens, 1);
      const std::vector<float> expected = truth.run({{0, 0, tokens}});
      for (const auto& backend : backends) {
        Attention attention(*backend, shape, tokens, 1);
        INFO(name_of(*backend), " heads ", shape.heads, "/", shape.kv_heads, " x ", shape.head_dim, ", ", tokens,
             " tokens");
        // A key rounded the other way, one in 2^8 of it in BF16 and of the head's largest in INT8, may tip a score.
        const double bound = shape.kv == DType::f32 ? 5e-6 : shape.kv == DType::bf16 ? 2e-3 : 1e-2;
        CHECK(relative_error(attention.run({{0, 0, tokens}}), expected) < bound);
      }
    }
  }
}

TEST_CASE("a row gets the same bits however its prompt is cut and whoever shares the batch") {
  for (const auto& backend : cpu_backends()) {
    for (const DType kv : {DType::f32, DType::bf16, DType::i8}) {
      const Shape shape{6, 2, 48, 48, true, kv};
      const int32_t tokens = 173;
      Attention whole(*backend, shape, tokens, 3);
      const std::vector<float> expected = whole.run({{0, 0, tokens}});
      for (const int32_t size : {1, 3, 16, 17, 64, 100}) {
        if (!thorough() && (size == 3 || size == 64)) continue;
        Attention cut(*backend, shape, tokens, 3);
        INFO(name_of(*backend), " chunks of ", size);
        CHECK(same_bits(in_chunks(cut, tokens, size), expected));
      }
      Attention shared(*backend, shape, tokens, 3);
      shared.run({{1, 0, 40}});
      const std::vector<float> batch = shared.run({{2, 0, 21}, {0, 0, tokens}, {1, 40, 1}});
      CHECK(same_bits(batch.data() + 21 * shared.row_size(), expected.data(), expected.size()));
    }
  }
}

TEST_CASE("long pasts: cut along positions or not, the bits are the same, and right") {
  const auto reference = make_backend({"reference", 0, ""});
  const Shape shape{2, 1, 16, 16, false, DType::f32};
  const int32_t tokens = 2100;  // three position splits
  Attention truth(*reference, shape, tokens, 1);
  const std::vector<float> expected = truth.run({{0, 0, tokens}});
  for (const auto& backend : cpu_backends()) {
    Attention whole(*backend, shape, tokens, 1);
    const std::vector<float> all = whole.run({{0, 0, tokens}});
    CHECK(relative_error(all, expected) < 1e-5);
    Attention cut(*backend, shape, tokens, 1);
    cut.run({{0, 0, 1022}});
    const int32_t rows = thorough() ? 4 : 111;
    for (int32_t first = 1022; first < tokens; first += rows) {  // few rows: cut along positions with 3 threads
      const int32_t count = std::min(rows, tokens - first);
      const std::vector<float> some = cut.run({{0, first, count}});
      INFO(name_of(*backend), " at ", first);
      REQUIRE(same_bits(some.data(), all.data() + first * static_cast<int64_t>(cut.row_size()), some.size()));
    }
  }
}

TEST_CASE("what lies in the cache beyond a row's past cannot reach it, not even NaN") {
  for (const auto& backend : cpu_backends()) for (const DType kv : {DType::bf16, DType::i8}) {
    const Shape shape{2, 1, 32, 32, false, kv};
    Attention clean(*backend, shape, 48, 1);
    const std::vector<float> expected = clean.run({{0, 0, 20}});
    Attention dirty(*backend, shape, 48, 1);
    const std::vector<float> poisoned = dirty.run({{0, 0, 48}}, 20);
    CHECK(same_bits(poisoned.data(), expected.data(), expected.size()));  // NaN later in the same chunk
    CHECK(std::isnan(poisoned.back()));
    CHECK(same_bits(dirty.run({{0, 0, 20}}), expected));  // NaN left behind in a block that is used again
  }
}

TEST_CASE("a product that reads attention's output next gets the same bits as later") {
  for (const auto& backend : cpu_backends()) {
    for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      for (const int32_t head_dim : {16, 64, 20}) {
        INFO(name_of(*backend), " ", name_of(format), " head ", head_dim);
        const int32_t past = thorough() || head_dim == 64 ? 1199 : 150;
        Attention attention(*backend, {4, 2, head_dim, head_dim, false, DType::f32}, past + 1, 3);
        const int64_t width = int64_t{4} * head_dim;
        const MatrixPtr weight = to_matrix(*backend, random_floats(static_cast<size_t>(24 * width), 9), 24, width, format);
        const auto projected = [&](const Tensor& x) {
          const LinearOutput output{weight.get(), nullptr, backend->allocate(DType::f32, x.rows, 24), {}};
          backend->linear(x, {&output, 1});
          return to_vector(*backend, output.y);
        };
        projected(to_tensor(*backend, random_floats(static_cast<size_t>(width), 10), 1, width));
        using Chunks = std::vector<Attention::Chunk>;
        for (const Chunks& chunks : {Chunks{{0, 0, past}}, Chunks{{0, past, 1}}, Chunks{{1, 0, 1}, {2, 0, 1}},
                                     Chunks{{1, 1, 3}, {2, 1, 40}}}) {
          const Tensor out = attention.attend(chunks);
          const std::vector<float> next = projected(out);
          REQUIRE(same_bits(next, projected(to_tensor(*backend, to_vector(*backend, out), out.rows, width))));
          REQUIRE(same_bits(next, projected(out)));
        }
      }
    }
  }
}

TEST_CASE("INT8 keeps a vector within half a step of its largest value, and hides nothing that is not finite") {
  const auto reference = make_backend({"reference", 0, ""});
  const Shape exact{2, 1, 64, 64, false, DType::f32};
  Shape small = exact;
  small.kv = DType::i8;
  Attention truth(*reference, exact, 100, 1);
  const std::vector<float> expected = truth.run({{0, 0, 100}});
  std::vector<std::unique_ptr<Backend>> backends = cpu_backends();
  backends.push_back(make_backend({"reference", 0, ""}));
  for (const auto& backend : backends) {
    Attention attention(*backend, small, 100, 1);
    const double error = relative_error(attention.run({{0, 0, 100}}), expected);
    INFO(name_of(*backend), ": ", error);
    CHECK(error < 0.05);
    CHECK(error > 1e-5);  // it is another format
    Attention poisoned(*backend, small, 100, 1);
    CHECK(std::isnan(poisoned.run({{0, 0, 100}}, 99).back()));
  }
}
