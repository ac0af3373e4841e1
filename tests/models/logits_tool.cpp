// Runs a base model with experts from the command line and writes raw logits: the door the Python oracles use.
//
//   logits_tool MODEL [--device D] [--weights auto|f32|bf16|int8|int4|int4-all] [--kv f32|bf16] [--adapter DIR=WEIGHT]… [--chunk N]
//               [--greedy N] [--cache DIR] [--context N] [--rope JSON] [--threads N] [--time]
//
// Reads token ids from stdin, one request per line. For every request, alone and in order: without --greedy, the f32
// logits of every row go to stdout (rows * vocab floats); with it, N greedily decoded ids, one line of text.
// Errors: "<code> <message>" on stderr and exit 1.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/json.h"
#include "support/runner.h"

namespace {

using namespace expert;

struct Options {
  std::string model;
  std::string device = "cpu";
  ModelOptions load;
  DType kv = DType::f32;
  std::vector<std::pair<std::string, float>> adapters;
  int32_t chunk = 512;
  int32_t greedy = 0;
  int threads = 1;
  bool time = false;
};

WeightChoice weights_of(const std::string& name) {
  if (name == "auto") return WeightChoice::automatic;
  if (name == "f32") return WeightChoice::f32;
  if (name == "bf16") return WeightChoice::bf16;
  if (name == "int8") return WeightChoice::int8;
  if (name == "int4") return WeightChoice::int4;
  if (name == "int4-all") return WeightChoice::int4_all;
  fail(ErrorCode::invalid_request, "--weights {}", name);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string key = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) fail(ErrorCode::invalid_request, "{} needs a value", key);
      return argv[++i];
    };
    if (key == "--device") {
      options.device = value();
    } else if (key == "--weights") {
      options.load.weights = weights_of(value());
    } else if (key == "--kv") {
      options.kv = value() == "bf16" ? DType::bf16 : DType::f32;
    } else if (key == "--adapter") {
      const std::string pair = value();
      const size_t at = pair.rfind('=');
      options.adapters.emplace_back(pair.substr(0, at),
                                    at == std::string::npos ? 1.0F : std::stof(pair.substr(at + 1)));
    } else if (key == "--chunk") {
      options.chunk = std::stoi(value());
    } else if (key == "--greedy") {
      options.greedy = std::stoi(value());
    } else if (key == "--cache") {
      options.load.cache_dir = value();
    } else if (key == "--context") {
      options.load.context_size = std::stoll(value());
    } else if (key == "--rope") {
      options.load.rope_scaling = parse_json(value(), "--rope");
    } else if (key == "--threads") {
      options.threads = std::stoi(value());
    } else if (key == "--time") {
      options.time = true;
    } else {
      options.model = key;
    }
  }
  return options;
}

int32_t best(const float* row, int32_t vocab) { return static_cast<int32_t>(std::max_element(row, row + vocab) - row); }

void print_greedy(test::Runner& runner, std::vector<int32_t> ids, const Options& options, const AdapterSet* set) {
  test::Sequence sequence = runner.sequence(static_cast<int32_t>(ids.size()) + options.greedy, options.kv, set);
  std::vector<float> logits = sequence.run(ids, options.chunk);
  const int32_t vocab = runner.model().config().vocab_size;
  std::string line;
  for (int32_t i = 0; i < options.greedy; ++i) {
    const int32_t next = best(logits.data() + logits.size() - static_cast<size_t>(vocab), vocab);
    line += std::to_string(next) + ' ';
    if (i + 1 < options.greedy) logits = sequence.run({next}, options.chunk);
  }
  std::printf("%s\n", line.c_str());
}

int run(const Options& options) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  test::Runner runner(options.model, options.device, options.load, options.threads);
  const std::chrono::duration<double> loading = Clock::now() - start;
  if (options.time) {
    std::fprintf(stderr, "load_s %.3f from_cache %d\n", loading.count(), runner.model().loaded_from_cache());
    if (!options.load.cache_dir.empty())
      std::fprintf(stderr, "cache_written %d\n", runner.model().write_weight_cache());
  }
  const auto set = runner.adapters(options.adapters);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    for (int32_t id = 0; words >> id;) ids.push_back(id);
    if (options.greedy > 0) {
      print_greedy(runner, ids, options, set.get());
      continue;
    }
    test::Sequence sequence = runner.sequence(static_cast<int32_t>(ids.size()), options.kv, set.get());
    const std::vector<float> logits = sequence.run(ids, options.chunk);
    std::fwrite(logits.data(), sizeof(float), logits.size(), stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const Error& error) {
    std::fprintf(stderr, "%d %s\n", static_cast<int>(error.code()), error.what());
    return 1;
  }
}
