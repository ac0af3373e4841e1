// Speed of the linear layers on this machine, as JSON: memory bandwidth, then decode (one row) and prefill (many rows)
// over the layers of Qwen3-0.6B with random weights, through Backend::linear.
//   kernel_bench [--threads N] [--isa NAME] [--repeat N] [--layers N] [--bandwidth 1]
// With --bandwidth 1 only what the memory gives is measured.
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"

using namespace expert;

namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  int64_t in, out;
};
constexpr Shape kLayer[] = {{"q", 1024, 2048},    {"k", 1024, 1024},  {"v", 1024, 1024},   {"o", 2048, 1024},
                            {"gate", 1024, 3072}, {"up", 1024, 3072}, {"down", 3072, 1024}};
constexpr Shape kHead = {"head", 1024, 151936};

double seconds_of(const std::function<void()>& work) {
  const auto begin = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Best {
  double best, median;
};

Best of_repeats(int repeat, const std::function<double()>& rate) {
  std::vector<double> rates;
  for (int i = 0; i < repeat; ++i) rates.push_back(rate());
  std::sort(rates.begin(), rates.end());
  return {rates.back(), rates[rates.size() / 2]};
}

void pin_to(int index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != index) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

// Sum of 64-bit words, a cache line from each of kStreams places in turn: one core gets more out of memory that way
// than from one place.
template <size_t kStreams>
uint64_t sum_words(const uint64_t* words, size_t count) {
  typedef uint64_t Vector __attribute__((vector_size(16)));
  const size_t length = count / kStreams / 8 * 8;
  Vector lane[kStreams][4] = {};
  for (size_t i = 0; i < length; i += 8) {
#pragma GCC unroll 8
    for (size_t s = 0; s < kStreams; ++s) {
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) lane[s][j] += *reinterpret_cast<const Vector*>(words + s * length + i + 2 * j);
    }
  }
  Vector sum = {};
  for (const auto& stream : lane) sum += stream[0] + stream[1] + stream[2] + stream[3];
  return sum[0] + sum[1];
}

uint64_t sum_streams(const uint64_t* words, size_t count, size_t streams) {
  switch (streams) {
    case 1:
      return sum_words<1>(words, count);
    case 2:
      return sum_words<2>(words, count);
    case 4:
      return sum_words<4>(words, count);
    default:
      return sum_words<8>(words, count);
  }
}

// Page-aligned words on huge pages where the system grants them.
std::span<uint64_t> map_words(size_t count) {
  constexpr size_t kHugePage = size_t{2} << 20;
  void* memory = std::aligned_alloc(kHugePage, (count * 8 + kHugePage - 1) / kHugePage * kHugePage);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, count * 8, MADV_HUGEPAGE);
  const std::span words(static_cast<uint64_t*>(memory), count);
  std::fill(words.begin(), words.end(), 1);
  return words;
}

// GB/s of reading `bytes` of memory with pinned threads, each its own part. Threads are fresh, so the caller stays
// unpinned.
Best read_bandwidth(size_t bytes, int threads, size_t streams, int repeat) {
  const std::span<uint64_t> words = map_words(bytes / 8);
  std::vector<double> rates(static_cast<size_t>(repeat));
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  Clock::time_point begin;
  std::barrier together(threads);
  const auto scan = [&](int t) {
    pin_to(t);
    const size_t part = words.size() / static_cast<size_t>(threads);
    for (int r = 0; r < repeat; ++r) {
      together.arrive_and_wait();
      if (t == 0) begin = Clock::now();
      sums[static_cast<size_t>(t) * 8] += sum_streams(words.data() + static_cast<size_t>(t) * part, part, streams);
      together.arrive_and_wait();
      if (t == 0) {
        rates[static_cast<size_t>(r)] =
            static_cast<double>(bytes) / 1e9 / std::chrono::duration<double>(Clock::now() - begin).count();
      }
    }
  };
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) workers.emplace_back(scan, t);
  for (std::thread& worker : workers) worker.join();
  std::free(words.data());
  std::sort(rates.begin(), rates.end());
  return {rates.back(), rates[rates.size() / 2]};
}

MatrixPtr random_matrix(Backend& backend, const Shape& shape, WeightFormat format) {
  static const std::vector<float> noise = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0F, 0.03F);
    std::vector<float> values(1 << 20);
    for (float& value : values) value = normal(random);
    return values;
  }();
  MatrixSource source;
  source.rows = shape.out;
  source.cols = shape.in;
  source.read = [&](int64_t first, int64_t count, void* to) {
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(static_cast<float*>(to) + r * shape.in, noise.data() + (first + r) * 61 % ((1 << 20) - 4096),
                  static_cast<size_t>(shape.in) * sizeof(float));
    }
  };
  return backend.pack(source, format);
}

// Matrices that share an input, as the model calls them.
struct Group {
  std::vector<MatrixPtr> weights;
  size_t bytes = 0;
  double macs = 0;
};

class Model {
 public:
  Model(Backend& backend, WeightFormat format, int layers) : backend_(backend) {
    for (int l = 0; l < layers; ++l) {
      add(format, {kLayer[0], kLayer[1], kLayer[2]});
      add(format, {kLayer[3]});
      add(format, {kLayer[4], kLayer[5]});
      add(format, {kLayer[6]});
    }
    add(format, {kHead});
  }

  // Seconds for `rows` rows through all matrices, the head with one row as in prefill.
  double forward(int64_t rows) {
    std::vector<float> values(static_cast<size_t>(rows * 3072), 0.01F);
    std::vector<Tensor> x;
    std::vector<std::vector<Tensor>> y;
    for (size_t g = 0; g < groups_.size(); ++g) {
      const int64_t count = g + 1 == groups_.size() ? 1 : rows;
      x.push_back(backend_.allocate(DType::f32, count, groups_[g].weights[0]->cols()));
      backend_.upload(x.back(), values.data(), x.back().size_bytes());
      y.emplace_back();
      for (const MatrixPtr& weight : groups_[g].weights) y.back().push_back(output(count, weight->rows()));
    }
    return seconds_of([&] {
      for (size_t g = 0; g < groups_.size(); ++g) {
        std::vector<LinearOutput> outputs;
        for (size_t i = 0; i < y[g].size(); ++i) outputs.push_back({groups_[g].weights[i].get(), nullptr, y[g][i], {}});
        backend_.linear(x[g], outputs);
      }
    });
  }

  size_t bytes() const {
    size_t sum = 0;
    for (const Group& group : groups_) sum += group.bytes;
    return sum;
  }
  double layer_macs() const {
    double sum = 0;
    for (size_t g = 0; g + 1 < groups_.size(); ++g) sum += groups_[g].macs;
    return sum;
  }

 private:
  void add(WeightFormat format, const std::vector<Shape>& shapes) {
    Group group;
    for (const Shape& shape : shapes) {
      group.weights.push_back(random_matrix(backend_, shape, format));
      group.bytes += group.weights.back()->size_bytes();
      group.macs += static_cast<double>(shape.in) * static_cast<double>(shape.out);
    }
    groups_.push_back(std::move(group));
  }
  Tensor output(int64_t rows, int64_t cols) { return backend_.allocate(DType::f32, rows, cols); }

  Backend& backend_;
  std::vector<Group> groups_;
};

// GB/s of one row through enough copies of one shape to leave the caches.
Best one_shape(Backend& backend, const Shape& shape, WeightFormat format, int repeat) {
  std::vector<MatrixPtr> copies;
  size_t bytes = 0;
  while (bytes < (size_t{160} << 20)) {
    copies.push_back(random_matrix(backend, shape, format));
    bytes += copies.back()->size_bytes();
  }
  const Tensor x = backend.allocate(DType::f32, 1, shape.in);
  const std::vector<float> values(static_cast<size_t>(shape.in), 0.01F);
  backend.upload(x, values.data(), x.size_bytes());
  const Tensor y = backend.allocate(DType::f32, 1, shape.out);
  return of_repeats(repeat, [&] {
    return static_cast<double>(bytes) / 1e9 / seconds_of([&] {
             for (const MatrixPtr& copy : copies) {
               const LinearOutput output{copy.get(), nullptr, y, {}};
               backend.linear(x, {&output, 1});
             }
           });
  });
}

std::string measure(Backend& backend, WeightFormat format, int layers, int repeat, const Best& bandwidth) {
  std::string shapes;
  for (const Shape& shape : {kLayer[0], kLayer[1], kLayer[4], kLayer[6], kHead}) {
    const Best rate = one_shape(backend, shape, format, repeat);
    shapes += fmt::format(R"({}{{"name": "{}", "in": {}, "out": {}, "gb_s": {:.1f}, "median_gb_s": {:.1f}}})",
                          shapes.empty() ? "" : ", ", shape.name, shape.in, shape.out, rate.best, rate.median);
  }
  double pack_seconds = 0;
  std::unique_ptr<Model> model;
  pack_seconds = seconds_of([&] { model = std::make_unique<Model>(backend, format, layers); });
  model->forward(1);
  const Best decode = of_repeats(repeat, [&] { return static_cast<double>(model->bytes()) / 1e9 / model->forward(1); });
  std::string prefill;
  for (const int64_t rows : {2, 4, 8, 32, 128, 512}) {
    const Best rate = of_repeats(std::max(1, repeat / 3), [&] {
      return model->layer_macs() * static_cast<double>(rows) / 1e9 / model->forward(rows);
    });
    prefill += fmt::format(R"({}"{}": {:.1f})", prefill.empty() ? "" : ", ", rows, rate.best);
  }
  return fmt::format(
      R"({{"format": "{}", "pack_seconds": {:.2f}, "weight_bytes": {}, "decode_gb_s": {:.1f}, "decode_median_gb_s": {:.1f}, "share_of_bandwidth": {:.3f}, "linear_ms_per_token": {:.2f}, "gmac_s_by_rows": {{{}}}, "gemv": [{}]}})",
      name_of(format), pack_seconds, model->bytes(), decode.best, decode.median, decode.best / bandwidth.best,
      static_cast<double>(model->bytes()) / 1e6 / decode.best, prefill, shapes);
}

int option(int argc, char** argv, const char* name, int fallback) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return std::stoi(argv[i + 1]);
  }
  return fallback;
}

}  // namespace

int main(int argc, char** argv) try {
  BackendOptions options;
  options.device = "cpu";
  options.threads = option(argc, argv, "--threads", 0);
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--isa") == 0) options.isa = argv[i + 1];
  }
  const int repeat = option(argc, argv, "--repeat", 9);
  const int layers = option(argc, argv, "--layers", 28);
  const auto backend = make_backend(options);
  Best bandwidth{0, 0};  // the best way to read is the measure
  std::string by_streams;
  for (const size_t streams : {1, 2, 4, 8}) {
    const Best rate = read_bandwidth(size_t{512} << 20, backend->info().threads, streams, repeat);
    if (rate.best > bandwidth.best) bandwidth = rate;
    by_streams += fmt::format(R"({}"{}": {:.1f})", by_streams.empty() ? "" : ", ", streams, rate.best);
  }
  if (option(argc, argv, "--bandwidth", 0) != 0) {
    fmt::print("{{\"threads\": {}, \"bandwidth_gb_s\": {:.1f}, \"bandwidth_median_gb_s\": {:.1f}}}\n",
               backend->info().threads, bandwidth.best, bandwidth.median);
    return 0;
  }
  std::string formats;
  for (const WeightFormat format : {WeightFormat::int4, WeightFormat::int8, WeightFormat::bf16, WeightFormat::f32}) {
    formats += (formats.empty() ? "" : ",\n  ") + measure(*backend, format, layers, repeat, bandwidth);
  }
  fmt::print(
      "{{\"isa\": \"{}\", \"threads\": {}, \"bandwidth_gb_s\": {:.1f}, \"bandwidth_median_gb_s\": {:.1f}, "
      "\"bandwidth_by_streams\": {{{}}}, \"formats\": [\n  {}]}}\n",
      backend->info().isa, backend->info().threads, bandwidth.best, bandwidth.median, by_streams, formats);
  return 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
