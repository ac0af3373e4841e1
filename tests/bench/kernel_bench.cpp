// Speed of the linear layers on this machine, as JSON: memory bandwidth, then decode (one row) and prefill (many rows)
// over the layers of Qwen3-0.6B with random weights, through Backend::linear.
//   kernel_bench [--threads N] [--isa NAME] [--repeat N] [--layers N] [--formats int4,bf16] [--bandwidth 1]
// With --bandwidth 1 only what the memory gives is measured.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench_support.h"

using namespace expert;
using namespace expert::bench;

namespace {

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

}  // namespace

int main(int argc, char** argv) try {
  BackendOptions options;
  options.device = "cpu";
  options.threads = option(argc, argv, "--threads", 0);
  options.isa = text_option(argc, argv, "--isa");
  const int repeat = option(argc, argv, "--repeat", 9);
  const int layers = option(argc, argv, "--layers", 28);
  const auto backend = make_backend(options);
  const Bandwidth reads = read_bandwidth(backend->info().threads, repeat);
  const Best bandwidth = reads.best;
  std::string by_streams;
  for (const auto& [streams, rate] : reads.by_streams) {
    by_streams += fmt::format(R"({}"{}": {:.1f})", by_streams.empty() ? "" : ", ", streams, rate);
  }
  if (option(argc, argv, "--bandwidth", 0) != 0) {
    fmt::print("{{\"threads\": {}, \"bandwidth_gb_s\": {:.1f}, \"bandwidth_median_gb_s\": {:.1f}}}\n",
               backend->info().threads, bandwidth.best, bandwidth.median);
    return 0;
  }
  std::string formats;
  const std::string only = text_option(argc, argv, "--formats");
  for (const WeightFormat format : {WeightFormat::int4, WeightFormat::int8, WeightFormat::bf16, WeightFormat::f32}) {
    if (!only.empty() && only.find(name_of(format)) == std::string::npos) continue;
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
