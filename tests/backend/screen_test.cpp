// Backend::screened_linear against Backend::linear, bit by bit where it must be.
#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "backend_support.h"

using namespace expert;
using namespace expert::test;

namespace {

constexpr WeightFormat kHeads[] = {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8};

// The same products both ways.
struct Both {
  std::vector<float> whole;
  std::vector<float> screened;
  ScreenStats stats;
};

Both both_ways(Backend& backend, const std::vector<float>& w, int64_t outputs, int64_t inputs, WeightFormat format,
               const std::vector<float>& x, const std::vector<int32_t>& best) {
  const MatrixPtr weight = to_matrix(backend, w, outputs, inputs, format);
  const MatrixPtr screen = backend.pack_screen(*weight);
  const auto rows = static_cast<int64_t>(best.size());
  const Tensor activations = to_tensor(backend, x, rows, inputs);
  const Tensor y = backend.allocate(DType::f32, rows, outputs);
  const LinearOutput output{weight.get(), nullptr, y, {}};
  backend.linear(activations, std::span(&output, 1));
  Both both{to_vector(backend, y), {}, {}};
  backend.upload(y, std::vector<float>(both.whole.size(), 1e30F).data(), both.whole.size() * sizeof(float));
  const ScreenStats before = backend.screen_stats();
  backend.screened_linear(activations, *weight, *screen, best, y);
  both.screened = to_vector(backend, y);
  const ScreenStats after = backend.screen_stats();
  both.stats = {after.calls - before.calls, after.bytes - before.bytes, after.whole - before.whole};
  return both;
}

// What screened_linear() promises of one row.
bool promised(const float* whole, const float* screened, int64_t outputs, int32_t best) {
  std::vector<float> sorted(whole, whole + outputs);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const float least = sorted[static_cast<size_t>(std::min<int64_t>(outputs, best) - 1)];
  for (int64_t n = 0; n < outputs; ++n) {
    const bool same = std::memcmp(whole + n, screened + n, sizeof(float)) == 0;
    if (!same && (whole[n] >= least || !(screened[n] < least))) return false;
  }
  return true;
}

void check_rows(const Both& both, int64_t outputs, const std::vector<int32_t>& best) {
  for (size_t r = 0; r < best.size(); ++r) {
    const size_t at = r * static_cast<size_t>(outputs);
    CHECK(promised(both.whole.data() + at, both.screened.data() + at, outputs, best[r]));
  }
}

}  // namespace

TEST_CASE("the largest products are those of linear(), bit for bit, on every instruction set") {
  for (const auto& backend : cpu_backends()) {
    for (const WeightFormat format : kHeads) {
      for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {7, 33}, {640, 64}, {3001, 97}, {5000, 256}}) {
        const int64_t outputs = shape.first;
        const int64_t inputs = shape.second;
        CAPTURE(name_of(*backend));
        CAPTURE(outputs);
        CAPTURE(name_of(format));
        const auto seed = static_cast<uint32_t>(outputs);
        const std::vector<float> w = random_floats(static_cast<size_t>(outputs * inputs), seed, 0.03F);
        const std::vector<int32_t> best = {1, 2, 1, 20, 64};
        const std::vector<float> x = random_floats(best.size() * static_cast<size_t>(inputs), seed + 1);
        check_rows(both_ways(*backend, w, outputs, inputs, format, x, best), outputs, best);
      }
    }
  }
}

TEST_CASE("most of a matrix is not read for the largest product") {
  constexpr int64_t kOutputs = 32768;
  constexpr int64_t kInputs = 512;
  const std::vector<float> w = random_floats(kOutputs * kInputs, 1, 0.03F);
  const std::vector<float> x = random_floats(kInputs, 2);
  for (const auto& backend : cpu_backends()) {
    if (backend->info().threads == 1) continue;
    for (const WeightFormat format : kHeads) {
      if (!thorough() && format != WeightFormat::int8) continue;
      const Both both = both_ways(*backend, w, kOutputs, kInputs, format, x, {1});
      check_rows(both, kOutputs, {1});
      const size_t whole = to_matrix(*backend, w, kOutputs, kInputs, format)->size_bytes();
      const size_t screen = backend->screen_size(kOutputs, kInputs);
      CAPTURE(name_of(*backend));
      CHECK(both.stats.whole == 0);
      CHECK(both.stats.bytes > screen * 12 / 25);  // the finer bits are half of it
      CHECK(both.stats.bytes < screen * 3 / 4 + whole / 8);
    }
  }
}

TEST_CASE("where everything may be the largest, the whole matrix is read, and for a while no screen") {
  constexpr int64_t kOutputs = 2048;
  constexpr int64_t kInputs = 64;
  const auto backend = backend_on("baseline", 2) ? backend_on("baseline", 2) : std::move(cpu_backends().front());
  const std::vector<float> row = random_floats(kInputs, 3);
  std::vector<float> w;
  for (int64_t n = 0; n < kOutputs; ++n) w.insert(w.end(), row.begin(), row.end());
  const MatrixPtr weight = to_matrix(*backend, w, kOutputs, kInputs, WeightFormat::int8);
  const MatrixPtr screen = backend->pack_screen(*weight);
  const Tensor y = backend->allocate(DType::f32, 1, kOutputs);
  const std::vector<int32_t> best = {1};
  const auto call = [&](const std::vector<float>& values) {
    const uint64_t before = backend->screen_stats().bytes;
    backend->screened_linear(to_tensor(*backend, values, 1, kInputs), *weight, *screen, best, y);
    return backend->screen_stats().bytes - before;
  };
  const uint64_t both = screen->size_bytes() * 12 / 25 + weight->size_bytes();  // not all of the finer bits
  CHECK(call(random_floats(kInputs, 4)) > both);
  const std::vector<float> same = to_vector(*backend, y);
  CHECK(std::ranges::all_of(same, [&](float value) { return value == same.front(); }));
  CHECK(call(random_floats(kInputs, 5)) == weight->size_bytes());  // the pause after the first time
  CHECK(call(random_floats(kInputs, 6)) > both);
  for (int i = 0; i < 3; ++i) CHECK(call(random_floats(kInputs, 7)) == weight->size_bytes());  // a longer one
  CHECK(call(random_floats(kInputs, 8)) > both);
}

TEST_CASE("zeros, ties, values that are not numbers and more wanted than there are") {
  constexpr int64_t kOutputs = 1600;
  constexpr int64_t kInputs = 96;
  std::vector<float> w = random_floats(kOutputs * kInputs, 9, 0.03F);
  for (int64_t n = 40; n < 1500; n += 60) std::copy_n(w.begin(), kInputs, w.begin() + n * kInputs);  // equal rows
  std::fill_n(w.begin() + 800 * kInputs, 50 * kInputs, 0.0F);
  for (const auto& backend : cpu_backends()) {
    for (const WeightFormat format : kHeads) {
      CAPTURE(name_of(*backend));
      std::vector<float> ties(w.begin(), w.begin() + kInputs);  // row 0 and its copies are the largest
      for (const int32_t best : {1, 3, 30, 5000}) {
        check_rows(both_ways(*backend, w, kOutputs, kInputs, format, ties, {best}), kOutputs, {best});
        const std::vector<float> zeros(kInputs, 0.0F);
        check_rows(both_ways(*backend, w, kOutputs, kInputs, format, zeros, {best}), kOutputs, {best});
      }
      for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> x = random_floats(2 * kInputs, 10);
        x[kInputs + 5] = bad;
        const Both both = both_ways(*backend, w, kOutputs, kInputs, format, x, {1, 1});
        CHECK(both.stats.whole == 1);
        CHECK(std::memcmp(both.whole.data(), both.screened.data(), both.whole.size() * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("weights and activations at the end of the range of floats") {
  constexpr int64_t kOutputs = 1600;
  constexpr int64_t kInputs = 96;
  for (const auto& backend : cpu_backends()) {
    for (const float scale : {1e37F, 1e38F, 1e-37F, 1e-40F}) {
      CAPTURE(name_of(*backend));
      CAPTURE(scale);
      const std::vector<float> w = random_floats(kOutputs * kInputs, 13, scale);
      const std::vector<float> x = random_floats(kInputs, 14, scale > 1 ? 1e-6F : 1.0F);
      check_rows(both_ways(*backend, w, kOutputs, kInputs, WeightFormat::f32, x, {3}), kOutputs, {3});
    }
  }
}

TEST_CASE("a row gets the same alone, in company and on any number of threads, and a screen the same bytes") {
  constexpr int64_t kOutputs = 4000;
  constexpr int64_t kInputs = 128;
  const std::vector<float> w = random_floats(kOutputs * kInputs, 11, 0.03F);
  const std::vector<float> x = random_floats(8 * kInputs, 12);
  for (const auto& backend : cpu_backends()) {
    const MatrixPtr weight = to_matrix(*backend, w, kOutputs, kInputs, WeightFormat::int8);
    const MatrixPtr screen = backend->pack_screen(*weight);
    const std::span<const std::byte> bytes = backend->packed_bytes(*screen);
    CHECK(bytes.size() == backend->screen_size(kOutputs, kInputs));
    const auto first = cpu_backends().front()->pack_screen(
        *to_matrix(*cpu_backends().front(), w, kOutputs, kInputs, WeightFormat::int8));
    CHECK(std::ranges::equal(bytes, cpu_backends().front()->packed_bytes(*first)));

    const MatrixPtr adopted = backend->adopt_screen(kOutputs, kInputs, bytes, screen);
    CHECK_THROWS(static_cast<void>(backend->adopt_screen(kOutputs, kInputs + 32, bytes, screen)));
    const Tensor y = backend->allocate(DType::f32, 8, kOutputs);
    const std::vector<int32_t> best = {1, 5, 1, 1, 40, 1, 2, 1};
    backend->screened_linear(to_tensor(*backend, x, 8, kInputs), *weight, *adopted, best, y);
    const std::vector<float> together = to_vector(*backend, y);
    for (size_t r = 0; r < best.size(); ++r) {
      const std::vector<float> row(x.begin() + static_cast<ptrdiff_t>(r) * kInputs,
                                   x.begin() + static_cast<ptrdiff_t>(r + 1) * kInputs);
      const Both alone = both_ways(*backend, w, kOutputs, kInputs, WeightFormat::int8, row, {best[r]});
      CHECK(promised(alone.whole.data(), together.data() + r * kOutputs, kOutputs, best[r]));
    }
  }
}
