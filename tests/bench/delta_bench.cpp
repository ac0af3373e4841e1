// What experts cost the linear layers of Qwen3-0.6B (random BF16 weights, all seven layers, the head without experts), as
// JSON: each round runs one token through the base and through every set of experts in turn, in one process, so that
// each set has as many neighbours of the base alone as there are rounds.
//   delta_bench [--threads N] [--isa NAME] [--rounds N] [--layers N] [--rank N] [--rows N] [--format f32|bf16]
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench_support.h"
#include "core/error.h"

using namespace expert;
using namespace expert::bench;

namespace {

constexpr int kMostExperts = 10;

enum class Kind { lora, dora, ia3 };

struct SetOfExperts {
  std::string name;
  Kind kind;
  int count;
};

std::vector<float> noise(int64_t count, float around, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(around - spread, around + spread);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return values;
}

// One linear layer of the base with what every expert would do to it.
struct Layer {
  Shape shape;
  MatrixPtr weight;
  std::vector<LowRankTerm> terms;  // one per expert
  Tensor e, c, d;                  // of a DoRA; of an IA3
};

// Layers that share an input, as the model calls them.
using Group = std::vector<Layer>;

class Bench {
 public:
  Bench(Backend& backend, WeightFormat format, int layers, int64_t rank, int64_t rows)
      : backend_(backend), format_(format), rank_(rank), rows_(rows) {
    for (int l = 0; l < layers; ++l) {
      add({kLayer[0], kLayer[1], kLayer[2]});
      add({kLayer[3]});
      add({kLayer[4], kLayer[5]});
      add({kLayer[6]});
    }
    add({kHead});
    load_experts();
  }

  // Forms the set's deltas, then runs one pass: seconds.
  double pass(const SetOfExperts* set) {
    std::vector<std::vector<LinearDelta>> deltas(groups_.size());
    for (size_t g = 0; set != nullptr && g + 1 < groups_.size(); ++g) {
      for (const Layer& layer : groups_[g]) deltas[g].push_back(delta_of(layer, *set));
    }
    return seconds_of([&] {
      for (size_t g = 0; g < groups_.size(); ++g) run_group(g, deltas[g]);
    });
  }

  double base_bytes() const {
    double sum = 0;
    for (const Group& group : groups_) {
      for (const Layer& layer : group) sum += static_cast<double>(layer.weight->size_bytes());
    }
    return sum;
  }

  double bytes_of(const SetOfExperts& set) const {
    double sum = 0;
    for (size_t g = 0; g + 1 < groups_.size(); ++g) {
      for (const Layer& layer : groups_[g]) {
        const LinearDelta delta = delta_of(layer, set);
        for (const LowRankTerm& term : delta.low_rank) sum += static_cast<double>(term.a->size_bytes() + term.b->size_bytes());
        for (const Tensor* tensor : {&delta.input_scale, &delta.output_scale, &delta.result_scale})
          if (*tensor) sum += static_cast<double>(tensor->size_bytes());
      }
    }
    return sum;
  }

 private:
  void add(const std::vector<Shape>& shapes) {
    Group& group = groups_.emplace_back();
    for (const Shape& shape : shapes) group.push_back({shape, random_matrix(backend_, shape, format_), {}, {}, {}, {}});
  }

  Tensor vector_of(int64_t count, uint32_t seed) {
    const std::vector<float> values = noise(count, 1.0F, 0.1F, seed);
    Tensor tensor = backend_.allocate(DType::f32, 1, count);
    backend_.upload(tensor, values.data(), tensor.size_bytes());
    return tensor;
  }

  // Each expert's factors in one call, as the loader packs them.
  void load_experts() {
    const std::vector<float> pool = noise(int64_t{1} << 20, 0.0F, 0.02F, 7);
    const auto source = [&](FactorSource::Role role, int64_t rows, int64_t cols, size_t from) {
      FactorSource factor;
      factor.role = role;
      factor.values.rows = rows;
      factor.values.cols = cols;
      factor.values.read = [&pool, cols, from](int64_t first, int64_t count, void* to) {
        for (int64_t i = 0; i < count * cols; ++i)
          static_cast<float*>(to)[i] = pool[(from + static_cast<size_t>(first * cols + i)) % pool.size()];
      };
      return factor;
    };
    for (int expert = 0; expert < kMostExperts; ++expert) {
      std::vector<FactorSource> sources;
      for (size_t g = 0; g + 1 < groups_.size(); ++g) {
        for (const Layer& layer : groups_[g]) {
          const size_t from = static_cast<size_t>(expert) * 7919 + g * 104729;
          sources.push_back(source(FactorSource::Role::a, rank_, layer.shape.in, from));
          sources.push_back(source(FactorSource::Role::b, layer.shape.out, rank_, from + 31));
        }
      }
      const std::vector<MatrixPtr> packed = backend_.pack_factors(sources, format_);
      auto next = packed.begin();
      for (size_t g = 0; g + 1 < groups_.size(); ++g) {
        for (Layer& layer : groups_[g]) {
          layer.terms.push_back({*next, *(next + 1), 0.5F});
          next += 2;
        }
      }
    }
    for (size_t g = 0; g + 1 < groups_.size(); ++g) {
      for (Layer& layer : groups_[g]) {
        layer.e = vector_of(layer.shape.out, 1);
        if (layer.shape.name == std::string("down")) layer.d = vector_of(layer.shape.in, 2);
        if (layer.shape.name == std::string("k") || layer.shape.name == std::string("v"))
          layer.c = vector_of(layer.shape.out, 3);
      }
    }
  }

  static LinearDelta delta_of(const Layer& layer, const SetOfExperts& set) {
    LinearDelta delta;
    if (set.kind == Kind::ia3) {
      delta.input_scale = layer.d;
      delta.result_scale = layer.c;
      return delta;
    }
    delta.low_rank.assign(layer.terms.begin(), layer.terms.begin() + set.count);
    if (set.kind == Kind::dora) delta.output_scale = layer.e;
    return delta;
  }

  static bool changes(const LinearDelta& delta) {
    return !delta.low_rank.empty() || delta.input_scale || delta.result_scale;
  }

  void run_group(size_t g, const std::vector<LinearDelta>& deltas) {
    const Group& group = groups_[g];
    const int64_t rows = g + 1 == groups_.size() ? 1 : rows_;
    std::vector<SegmentDelta> segments(deltas.size());
    std::vector<LinearOutput> outputs;
    for (size_t i = 0; i < group.size(); ++i) {
      std::span<const SegmentDelta> used;
      if (i < deltas.size() && changes(deltas[i])) {
        segments[i] = {0, static_cast<int32_t>(rows), &deltas[i]};
        used = {&segments[i], 1};
      }
      outputs.push_back({group[i].weight.get(), nullptr, activations(1 + i, rows, group[i].shape.out), used});
    }
    backend_.linear(activations(0, rows, group[0].shape.in), outputs);
  }

  Tensor activations(size_t slot, int64_t rows, int64_t cols) {
    Tensor& tensor = memory_[slot];
    if (!tensor || tensor.size_bytes() < static_cast<size_t>(rows * cols) * sizeof(float)) {
      tensor = backend_.allocate(DType::f32, rows, cols);
      const std::vector<float> values(static_cast<size_t>(rows * cols), 0.01F);
      backend_.upload(tensor, values.data(), tensor.size_bytes());
    }
    Tensor view = tensor;
    view.rows = rows;
    view.cols = cols;
    return view;
  }

  Backend& backend_;
  const WeightFormat format_;
  const int64_t rank_;
  const int64_t rows_;
  std::vector<Group> groups_;
  Tensor memory_[4];
};

double middle(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string row_of(const Bench& bench, const SetOfExperts& set, const std::vector<double>& base,
                   const std::vector<double>& bent, const std::vector<double>& lora, double bandwidth) {
  std::vector<double> over_base;
  std::vector<double> over_lora;
  for (size_t i = 0; i < base.size(); ++i) {
    over_base.push_back(bent[i] / base[i]);
    over_lora.push_back(bent[i] / lora[i]);
  }
  const double bytes = bench.base_bytes() + bench.bytes_of(set);
  const double ideal = bytes / bandwidth / 1e6;
  return fmt::format(
      R"(    {{"set": "{}", "ms": {:.2f}, "bytes": {:.0f}, "over_base": {:.4f}, "over_one_lora": {:.4f}, "bytes_over_bandwidth_ms": {:.2f}, "times_bytes_over_bandwidth": {:.3f}}})",
      set.name, middle(bent) * 1e3, bytes, middle(over_base), middle(over_lora), ideal, middle(bent) * 1e3 / ideal);
}

}  // namespace

int main(int argc, char** argv) try {
  BackendOptions options;
  options.device = "cpu";
  options.threads = option(argc, argv, "--threads", 0);
  options.isa = text_option(argc, argv, "--isa");
  const int rounds = std::max(1, option(argc, argv, "--rounds", 31));
  const int64_t rank = option(argc, argv, "--rank", 16);
  const int64_t rows = option(argc, argv, "--rows", 1);
  const WeightFormat format = text_option(argc, argv, "--format") == "f32" ? WeightFormat::f32 : WeightFormat::bf16;
  const auto backend = make_backend(options);
  Bench bench(*backend, format, option(argc, argv, "--layers", 28), rank, rows);

  const std::vector<SetOfExperts> sets = {
      {"lora x1", Kind::lora, 1}, {"lora x3", Kind::lora, 3}, {"lora x10", Kind::lora, 10},
      {"dora x1", Kind::dora, 1}, {"ia3 x1", Kind::ia3, 1}};
  std::vector<double> base;
  std::vector<std::vector<double>> bent(sets.size());
  std::vector<double> rates;  // GB/s of reading alone, between the rounds
  const capi::BandwidthProbe reads(backend->info().threads);
  const auto probe = [&] { rates.push_back(reads.measure() / 1e9); };
  bench.pass(nullptr);
  for (const SetOfExperts& set : sets) bench.pass(&set);
  for (int round = 0; round < rounds; ++round) {
    if (round % 5 == 0) probe();
    base.push_back(bench.pass(nullptr));
    for (size_t s = 0; s < sets.size(); ++s) bent[s].push_back(bench.pass(&sets[s]));
  }
  probe();
  const double bandwidth = *std::max_element(rates.begin(), rates.end());
  const double ideal = bench.base_bytes() / bandwidth / 1e6;
  std::string table;
  for (size_t s = 0; s < sets.size(); ++s) {
    table += fmt::format("{}{}", table.empty() ? "" : ",\n", row_of(bench, sets[s], base, bent[s], bent[0], bandwidth));
  }
  fmt::print(
      "{{\"isa\": \"{}\", \"threads\": {}, \"format\": \"{}\", \"rank\": {}, \"rows\": {}, \"rounds\": {},\n"
      "  \"bandwidth_gb_s\": {:.1f}, \"bandwidth_median_gb_s\": {:.1f},\n"
      "  \"base\": {{\"ms\": {:.2f}, \"bytes\": {:.0f}, \"bytes_over_bandwidth_ms\": {:.2f}, "
      "\"times_bytes_over_bandwidth\": {:.3f}}},\n  \"sets\": [\n{}\n  ]}}\n",
      backend->info().isa, backend->info().threads, name_of(format), rank, rows, rounds, bandwidth, middle(rates),
      middle(base) * 1e3, bench.base_bytes(), ideal, middle(base) * 1e3 / ideal, table);
  return 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
