// The emulator itself, and what only it can show: that no result of a kernel depends on the order of a block's threads.
#include <doctest/doctest.h>

#include <stdexcept>

#include "backend/backend_support.h"
#include "cuda/emulator/fibers.h"

using namespace expert;
using namespace expert::test;
using expert::cuda_emulator::Order;
using expert::cuda_emulator::run_block;
using expert::cuda_emulator::set_order;

namespace {

struct InOrder {
  explicit InOrder(Order order) { set_order(order); }
  ~InOrder() { set_order(Order::forward); }
};

constexpr Order kOrders[] = {Order::forward, Order::backward, Order::shuffled};

std::vector<float> linear(Backend& backend, WeightFormat format, int64_t rows) {
  const int64_t in = 700;
  const int64_t out = 37;
  const MatrixPtr w = to_matrix(backend, random_floats(static_cast<size_t>(in * out), 1), out, in, format);
  const Tensor x = to_tensor(backend, random_floats(static_cast<size_t>(rows * in), 2), rows, in);
  LinearDelta delta;
  delta.low_rank.push_back(to_low_rank(backend, random_floats(static_cast<size_t>(7 * in), 3),
                                       random_floats(static_cast<size_t>(out * 7), 4), in, out, 7, WeightFormat::bf16, 0.5F));
  delta.input_scale = to_tensor(backend, random_floats(static_cast<size_t>(in), 5), 1, in);
  delta.dense.push_back({to_matrix(backend, random_floats(static_cast<size_t>(in * out), 6), out, in, WeightFormat::f32), 2.0F});
  const SegmentDelta segment{0, static_cast<int32_t>(rows / 2), &delta};
  const LinearOutput output{w.get(), nullptr, backend.allocate(DType::f32, rows, out), {&segment, 1}};
  backend.linear(x, {&output, 1});
  const Tensor normed = backend.allocate(DType::f32, rows, out);
  backend.rms_norm(output.y, to_tensor(backend, random_floats(static_cast<size_t>(out), 7), 1, out), 1e-6F, normed);
  return to_vector(backend, normed);
}

std::vector<float> attention(Backend& backend, DType kv_dtype) {
  const int32_t tokens = 300;
  const int32_t dim = 48;
  const auto kv = backend.create_kv({1, 2, dim, 19, kv_dtype});
  std::vector<int32_t> table;
  for (int32_t b = 19; b-- > 0;) table.push_back(b);
  BatchLayout layout;
  layout.segments.push_back({0, tokens, 0, table});
  const auto random = [&](int64_t cols, uint32_t seed) {
    return to_tensor(backend, random_floats(static_cast<size_t>(tokens * cols), seed), tokens, cols);
  };
  const RopeTable rope{random(dim / 2, 4), random(dim / 2, 5), dim};
  AttentionOp op;
  op.q = random(6 * dim, 1);
  op.k = random(2 * dim, 2);
  op.v = random(2 * dim, 3);
  op.rope = &rope;
  op.kv = kv.get();
  op.heads = 6;
  op.kv_heads = 2;
  op.head_dim = dim;
  op.scale = 0.2F;
  op.out = backend.allocate(DType::f32, tokens, 6 * dim);
  backend.attention(layout, op);
  return to_vector(backend, op.out);
}

}  // namespace

TEST_CASE("barriers and exchanges do what a device's do") {
  for (const Order order : kOrders) {
    const InOrder in_order(order);
    std::vector<int> before(64);
    std::vector<uint32_t> got(64);
    run_block({3, 2, 1}, 64, 16, [&] {
      const unsigned t = threadIdx.x;
      CHECK(blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z == 123);
      before[t] = 1;
      __syncthreads();
      for (const int seen : before) CHECK(seen == 1);
      uint32_t value = t;
      for (int distance = 1; distance < 32; distance *= 2) value += cuda_emulator::exchange(value, distance);
      got[t] = value;
    });
    for (uint32_t t = 0; t < 64; ++t) CHECK(got[t] == (t < 32 ? 496 : 496 + 32 * 32));
  }
}

TEST_CASE("memory of a block holds NaN until it is written, and a barrier that not all meet is an error") {
  run_block({}, 32, 64, [] { CHECK(std::isnan(reinterpret_cast<const float*>(cuda_emulator::block_memory())[threadIdx.x % 16])); });
  CHECK_THROWS_AS(run_block({}, 64, 0, [] { if (threadIdx.x == 5) __syncwarp(); }), std::logic_error);
  CHECK_THROWS_AS(run_block({}, 33, 0, [] {}), std::logic_error);
  int ran = 0;
  run_block({}, 64, 0, [&] { ++ran; });  // it goes on after that
  CHECK(ran == 64);
}

TEST_CASE("no kernel depends on the order in which the threads of a block run") {
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    for (const int64_t rows : {2, 9}) {
      const auto backend = backend_on("emulated", 1);
      const std::vector<float> expected = linear(*backend, format, rows);
      for (const Order order : {Order::backward, Order::shuffled}) {
        const InOrder in_order(order);
        CHECK(same_bits(linear(*backend, format, rows), expected));
      }
    }
  }
  for (const DType kv : {DType::f32, DType::bf16, DType::i8}) {
    const auto backend = backend_on("emulated", 1);
    const std::vector<float> expected = attention(*backend, kv);
    for (const Order order : {Order::backward, Order::shuffled}) {
      const InOrder in_order(order);
      CHECK(same_bits(attention(*backend, kv), expected));
    }
  }
}

TEST_CASE("what is allocated is given back, and too much is an error of its own kind") {
  const auto device = cuda_emulator::make_device(uint64_t{8} << 20);
  {
    cuda::CudaBackend backend(device, kernels::cuda::table(), 1);
    CHECK(backend.info().device == "cuda:0");
    CHECK(backend.free_memory() == uint64_t{8} << 20);
    linear(backend, WeightFormat::int4, 5);
    CHECK(backend.free_memory() < uint64_t{8} << 20);
    CHECK_THROWS_AS(backend.allocate(DType::f32, 3000, 1000), std::exception);
    linear(backend, WeightFormat::bf16, 5);  // and nothing else notices
  }
  CHECK(device->memory().free == uint64_t{8} << 20);
}
