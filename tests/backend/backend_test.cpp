// Memory, packing, the cheap operations, and what is refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "backend_support.h"
#include "core/error.h"
#include "kernels/formats.h"

using namespace expert;
using namespace expert::test;

namespace {

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::ok;
}

std::vector<std::unique_ptr<Backend>> all_backends() {
  auto all = cpu_backends();
  all.push_back(make_backend({"reference", 0, ""}));
  return all;
}

}  // namespace

#if !defined(EXPERT_EMULATED_CUDA) && !defined(EXPERT_CUDA_DEVICE)
TEST_CASE("devices and instruction sets that are not there are refused by name") {
  CHECK(code_of([] { make_backend({"cuda", 0, ""}); }) == ErrorCode::unsupported);
  CHECK(code_of([] { make_backend({"cuda:1", 0, ""}); }) == ErrorCode::unsupported);
  CHECK(code_of([] { make_backend({"tpu", 0, ""}); }) == ErrorCode::unsupported);
  CHECK(code_of([] { make_backend({"cpu", 0, "sse9"}); }) == ErrorCode::unsupported);
  CHECK(code_of([] { make_backend({"cpu", -1, ""}); }) == ErrorCode::invalid_request);
  CHECK(make_backend({"auto", 2, ""})->info().threads == 2);
  CHECK(make_backend({"auto", 2, ""})->info().device == "cpu");
  CHECK(make_backend({"reference", 0, ""})->info().device == "reference");
}

TEST_CASE("EXPERT_ISA forces a set, an option overrides it") {
  const char* set = std::getenv("EXPERT_ISA");  // by who runs all tests on one
  const std::string before = set == nullptr ? "" : set;
  unsetenv("EXPERT_ISA");
  const std::string best = make_backend({"cpu", 1, ""})->info().isa;
  const std::string last = cpu_backends().front()->info().isa;
  setenv("EXPERT_ISA", last.c_str(), 1);
  CHECK(make_backend({"cpu", 1, ""})->info().isa == last);
  CHECK(make_backend({"cpu", 1, best})->info().isa == best);
  setenv("EXPERT_ISA", "avx9", 1);
  CHECK(code_of([] { make_backend({"cpu", 1, ""}); }) == ErrorCode::unsupported);
  setenv("EXPERT_ISA", "", 1);
  CHECK(make_backend({"cpu", 1, ""})->info().isa == best);
  setenv("EXPERT_ISA", before.c_str(), 1);
}
#endif

TEST_CASE("formats and sizes that cannot be are typed errors") {
  for (const auto& backend : all_backends()) {
    MatrixSource source;
    source.rows = 4;
    source.cols = 4;
    source.read = [](int64_t, int64_t count, void* to) { std::memset(to, 0, static_cast<size_t>(count) * 16); };
    source.dtype = DType::i32;
    CHECK(code_of([&] { backend->pack(source, WeightFormat::f32); }) == ErrorCode::unsupported);
    source.dtype = DType::f32;
    source.rows = 0;
    CHECK(code_of([&] { backend->pack(source, WeightFormat::f32); }) == ErrorCode::invalid_request);
    CHECK(code_of([&] { backend->allocate(DType::f32, int64_t{1} << 40, int64_t{1} << 40); }) ==
          ErrorCode::out_of_memory);
    CHECK(code_of([&] { backend->allocate(DType::f32, int64_t{1} << 30, int64_t{1} << 24); }) ==
          ErrorCode::out_of_memory);
    CHECK(code_of([&] { backend->create_kv({1, 1, 16, 4, DType::f16}); }) == ErrorCode::unsupported);
  }
}

TEST_CASE("KV blocks may be touched before they are used, on every backend") {
  for (const auto& backend : all_backends()) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::i8}) {
      const auto kv = backend->create_kv({3, 2, 16, 5, dtype});
      kv->touch(0, 5);
      kv->touch(4, 1);
      kv->touch(2, 0);
    }
  }
}

TEST_CASE("what the source throws comes out of pack, also from a helper thread") {
  for (const auto& backend : all_backends()) {
    for (const int64_t rows : {32, 8000}) {
      MatrixSource source;
      source.rows = rows;
      source.cols = 300;
      source.read = [&](int64_t first, int64_t count, void* to) {
        if (first + count == rows) fail(ErrorCode::load, "short read at row {}", first);
        std::memset(to, 0, static_cast<size_t>(count) * 1200);
      };
      CHECK(code_of([&] { backend->pack(source, WeightFormat::bf16); }) == ErrorCode::load);
    }
  }
}

TEST_CASE("pack reads every row once, and embed gives the rows back in the weight format") {
  for (const auto& backend : all_backends()) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const int64_t rows = 2903;
      const int64_t cols = 385;
      std::vector<std::atomic<int>> seen(static_cast<size_t>(rows));
      MatrixSource source;
      source.dtype = dtype;
      source.rows = rows;
      source.cols = cols;
      // Value of (r, c): a small integer, exact in every format.
      source.read = [&](int64_t first, int64_t count, void* to) {
        for (int64_t r = 0; r < count; ++r) {
          ++seen[static_cast<size_t>(first + r)];
          for (int64_t c = 0; c < cols; ++c) {
            const auto value = static_cast<float>((first + r + 3 * c) % 256 - 128);
            const size_t at = static_cast<size_t>(r * cols + c);
            if (dtype == DType::f32) {
              static_cast<float*>(to)[at] = value;
            } else if (dtype == DType::bf16) {
              uint32_t bits;
              std::memcpy(&bits, &value, 4);
              static_cast<uint16_t*>(to)[at] = static_cast<uint16_t>(bits >> 16);
            } else {
              const auto magnitude = static_cast<unsigned>(std::abs(value));
              unsigned exponent = 0;
              while (magnitude >> (exponent + 1) != 0) ++exponent;
              const unsigned bits =
                  magnitude == 0 ? 0 : ((exponent + 15) << 10) | ((magnitude << 10 >> exponent) & 1023U);
              static_cast<uint16_t*>(to)[at] = static_cast<uint16_t>(bits | (value < 0 ? 0x8000U : 0U));
            }
          }
        }
      };
      for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16}) {
        for (auto& count : seen) count = 0;
        const MatrixPtr matrix = backend->pack(source, format);
        for (auto& count : seen) REQUIRE(count == 1);
        CHECK(matrix->size_bytes() >= static_cast<size_t>(rows * cols) * (format == WeightFormat::f32 ? 4 : 2));
        BatchLayout layout;
        layout.token_ids = {0, 2902, 17, 1000, 17};
        const Tensor out = backend->allocate(DType::f32, 5, cols);
        backend->embed(*matrix, layout, out);
        const std::vector<float> values = to_vector(*backend, out);
        for (size_t i = 0; i < 5; ++i) {
          for (int64_t c = 0; c < cols; ++c) {
            REQUIRE(values[i * static_cast<size_t>(cols) + static_cast<size_t>(c)] ==
                    static_cast<float>((layout.token_ids[i] + 3 * c) % 256 - 128));
          }
        }
        layout.token_ids[1] = 2903;
        CHECK(code_of([&] { backend->embed(*matrix, layout, out); }) == ErrorCode::internal);
      }
    }
  }
}

TEST_CASE("packed bytes can be adopted, and only in their own size") {
  for (const auto& backend : cpu_backends()) {
    for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      const std::vector<float> w = random_floats(37 * 51, 1);
      const MatrixPtr packed = to_matrix(*backend, w, 37, 51, format);
      CHECK(packed->group() == (is_quantised(format) ? 32 : 0));
      const std::span<const std::byte> bytes = backend->packed_bytes(*packed);
      CHECK(backend->adopts(37, 51, format, bytes.size()));
      CHECK(bytes.size() == packed->size_bytes());
      const auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
      const MatrixPtr adopted = backend->adopt(37, 51, format, *copy, copy);
      const Tensor x = to_tensor(*backend, random_floats(51, 2), 1, 51);
      const LinearOutput a{packed.get(), nullptr, backend->allocate(DType::f32, 1, 37), {}};
      const LinearOutput b{adopted.get(), nullptr, backend->allocate(DType::f32, 1, 37), {}};
      backend->linear(x, {&a, 1});
      backend->linear(x, {&b, 1});
      CHECK(same_bits(to_vector(*backend, a.y), to_vector(*backend, b.y)));
      CHECK(code_of([&] { backend->adopt(38, 51, WeightFormat::f32, *copy, copy); }) == ErrorCode::load);
      CHECK(code_of([&] { backend->adopt(37, 51, format, std::span(*copy).first(64), copy); }) == ErrorCode::load);
    }
  }
}

TEST_CASE("large BF16 weights are narrow where that pays and loses nothing: same bits, also adopted and read back") {
  constexpr int64_t kOutputs = 1030;
  constexpr int64_t kInputs = 512;
  std::vector<float> w = random_floats(kOutputs * kInputs, 1);
  for (const auto& backend : cpu_backends()) {
    const MatrixPtr plain = to_matrix(*backend, w, kOutputs, kInputs - 1, WeightFormat::bf16);  // an odd number of inputs
    CHECK(plain->size_bytes() == size_t{1040} * kInputs * 2);
    std::vector<float> wild = w;
    for (size_t i = 0; i < 600; ++i) wild[i * 13] *= 1e-9F * static_cast<float>(i);
    for (const bool tame : {true, false}) {
      const std::vector<float>& values = tame ? w : wild;
      const MatrixPtr packed = to_matrix(*backend, values, kOutputs, kInputs, WeightFormat::bf16);
      const bool narrow = packed->size_bytes() < size_t{1040} * kInputs * 2;
      CAPTURE(name_of(*backend));
      CHECK(narrow == (tame && backend->info().layout == "panel16-narrow-2"));
      CHECK(packed->format() == WeightFormat::bf16);
      CHECK(backend->adopts(kOutputs, kInputs, WeightFormat::bf16, packed->size_bytes()));
      const std::span<const std::byte> bytes = backend->packed_bytes(*packed);
      const auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
      const MatrixPtr adopted = backend->adopt(kOutputs, kInputs, WeightFormat::bf16, *copy, copy);
      std::vector<float> back(values.size());
      backend->unpack_rows(*adopted, 0, kOutputs, back.data());
      for (size_t i = 0; i < back.size(); ++i) REQUIRE(back[i] == kernels::float_from_bf16(kernels::bf16_from_float(values[i])));
    }
  }
}

TEST_CASE("rows of a quantised embedding are those of the reference, and all sets pack the same bytes") {
  const auto reference = make_backend({"reference", 0, ""});
  const std::vector<float> w = random_floats(70 * 77, 6);
  BatchLayout layout;
  layout.token_ids = {69, 0, 17, 17};
  for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
    const auto rows_of = [&](Backend& backend) {
      const Tensor out = backend.allocate(DType::f32, 4, 77);
      backend.embed(*to_matrix(backend, w, 70, 77, format), layout, out);
      return to_vector(backend, out);
    };
    const std::vector<float> expected = rows_of(*reference);
    const auto backends = cpu_backends();
    const MatrixPtr first = to_matrix(*backends[0], w, 70, 77, format);
    for (const auto& backend : backends) {
      INFO(name_of(*backend), " ", name_of(format));
      CHECK(same_bits(rows_of(*backend), expected));
      const MatrixPtr packed = to_matrix(*backend, w, 70, 77, format);
      CHECK(std::ranges::equal(backend->packed_bytes(*packed), backends[0]->packed_bytes(*first)));
    }
  }
}

TEST_CASE("an expert's matrix in a quantised format is refused, not misread") {
  for (const auto& backend : cpu_backends()) {
    const MatrixPtr w = to_matrix(*backend, random_floats(64 * 32, 1), 64, 32, WeightFormat::int8);
    LinearDelta delta;
    delta.dense.push_back({w, 1.0F});
    const SegmentDelta segment{0, 1, &delta};
    const LinearOutput output{w.get(), nullptr, backend->allocate(DType::f32, 1, 64), {&segment, 1}};
    const Tensor x = to_tensor(*backend, random_floats(32, 2), 1, 32);
    CHECK(code_of([&] { backend->linear(x, {&output, 1}); }) == ErrorCode::internal);
  }
}

TEST_CASE("norm, swiglu, add and gather equal the reference, in place too") {
  const auto reference = make_backend({"reference", 0, ""});
  for (const int64_t rows : {1, 5, 40}) {
    const int64_t cols = 1000;
    const auto x = random_floats(static_cast<size_t>(rows * cols), 1);
    const auto y = random_floats(static_cast<size_t>(rows * cols), 2);
    const auto w = random_floats(static_cast<size_t>(cols), 3);
    const auto run = [&](Backend& b) {
      const Tensor tx = to_tensor(b, x, rows, cols);
      const Tensor ty = to_tensor(b, y, rows, cols);
      b.add(tx, ty);
      b.rms_norm(tx, to_tensor(b, w, 1, cols), 1e-5F, tx);
      b.swiglu(tx, ty, tx);
      const std::vector<int32_t> wanted = {static_cast<int32_t>(rows - 1), 0, 0};
      const Tensor out = b.allocate(DType::f32, 3, cols);
      b.gather_rows(tx, wanted, out);
      return to_vector(b, out);
    };
    const std::vector<float> truth = run(*reference);
    for (const auto& backend : cpu_backends()) CHECK(relative_error(run(*backend), truth) < 1e-6);
  }
}

TEST_CASE("packing on other threads while linear runs leaves both right") {
  const auto backend = make_backend({"cpu", 2, ""});
  const auto w = random_floats(512 * 256, 1);
  const MatrixPtr matrix = to_matrix(*backend, w, 512, 256, WeightFormat::bf16);
  const Tensor x = to_tensor(*backend, random_floats(30 * 256, 2), 30, 256);
  const auto product = [&](const MatrixPtr& m) {
    const LinearOutput output{m.get(), nullptr, backend->allocate(DType::f32, 30, 512), {}};
    backend->linear(x, {&output, 1});
    return to_vector(*backend, output.y);
  };
  const std::vector<float> expected = product(matrix);
  std::atomic<bool> stop{false};
  std::vector<MatrixPtr> made;
  std::thread loader([&] {
    do made.push_back(to_matrix(*backend, w, 512, 256, WeightFormat::bf16));  // once at least, however late it starts
    while (!stop);
  });
  for (int i = 0; i < 50; ++i) CHECK(same_bits(product(matrix), expected));
  stop = true;
  loader.join();
  CHECK(same_bits(product(made.back()), expected));
}

TEST_CASE("shapes that do not fit are errors, not memory faults") {
  for (const auto& backend : cpu_backends()) {
    const MatrixPtr matrix = to_matrix(*backend, random_floats(12, 1), 3, 4, WeightFormat::f32);
    const Tensor x = to_tensor(*backend, random_floats(8, 2), 2, 4);
    const auto linear = [&](const Tensor& in, const Tensor& out, std::span<const SegmentDelta> deltas) {
      const LinearOutput output{matrix.get(), nullptr, out, deltas};
      backend->linear(in, {&output, 1});
    };
    const Tensor y = backend->allocate(DType::f32, 2, 3);
    CHECK(code_of([&] { linear(x, backend->allocate(DType::f32, 2, 4), {}); }) == ErrorCode::internal);
    CHECK(code_of([&] { linear(to_tensor(*backend, random_floats(10, 2), 2, 5), y, {}); }) == ErrorCode::internal);
    CHECK(code_of([&] { linear(x, Tensor{}, {}); }) == ErrorCode::internal);
    LinearDelta delta;
    delta.low_rank.push_back({matrix, matrix, 1.0F});
    const SegmentDelta wrong{0, 2, &delta};
    CHECK(code_of([&] { linear(x, y, {&wrong, 1}); }) == ErrorCode::internal);
    const LinearDelta none;
    const SegmentDelta beyond{1, 2, &none};
    CHECK(code_of([&] { linear(x, y, {&beyond, 1}); }) == ErrorCode::internal);
  }
}
