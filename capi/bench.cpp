// expert_bench(): how fast this machine runs a model with experts, beside what its memory would allow.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <thread>

#include "bandwidth.h"
#include "bench_load.h"
#include "bench_model.h"
#include "convert.h"
#include "io/file.h"
#include "io/json.h"

#if !defined(_WIN32)
#include <sys/resource.h>
#endif

namespace expert::capi {

namespace {

using Clock = std::chrono::steady_clock;
using LoadedExperts = std::vector<std::shared_ptr<const LoadedExpert>>;
using Progress = std::function<void(double fraction)>;

constexpr int64_t kRank = 16;
constexpr int kSwapExperts = 10;  // of a set whose forming is measured
constexpr int kSwapRounds = 200;
constexpr size_t kLoads = 200;  // of each kind, so that p99 is not the slowest
constexpr auto kSettling = std::chrono::milliseconds(150);  // until a file's times tell its states apart
constexpr int kDecodePrompt = 16;

struct BenchOptions {
  EngineOptions engine;
  std::vector<int64_t> counts = {0, 1, 3, 10};  // rows of random experts, or
  std::vector<std::string> names;               // the base and these together
  std::vector<int64_t> prompt_tokens = {128, 512};
  int64_t decode_tokens = 64;
  int64_t repeat = 3;
  int64_t requests = 0;  // this many at once instead of one after the other
  int64_t experts_per_request = 1;
  int64_t rank = kRank;
};

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double rounded(double value) { return std::round(value * 1000) / 1000; }

// The sorted values' element at `fraction` of the way, rounded up.
double percentile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
  return values[std::max<size_t>(rank, 1) - 1];
}

double median(const std::vector<double>& values) { return percentile(values, 0.5); }

std::vector<int64_t> positive_integers(const Json& list, const char* key, int64_t least) {
  std::vector<int64_t> values;
  for (const Json& value : list) {
    if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > 1'000'000) {
      fail(ErrorCode::invalid_request, "bench: \"{}\" holds integers of at least {}", key, least);
    }
    values.push_back(value.get<int64_t>());
  }
  if (values.empty()) fail(ErrorCode::invalid_request, "bench: \"{}\" is empty", key);
  return values;
}

void require_known_keys(const Json& json) {
  static const std::set<std::string> known = {"model",   "device",        "weights",       "kv",    "home", "threads",
                                              "experts", "prompt_tokens", "decode_tokens", "repeat",
                                              "requests", "experts_per_request", "rank"};
  for (const auto& [key, value] : json.items()) {
    if (known.count(key) == 0) fail(ErrorCode::invalid_request, "bench: unknown option \"{}\"", key);
  }
}

const Json& list_of(const JsonFields& fields, const char* key) {
  const Json& list = fields.require(key);
  if (!list.is_array()) fail(ErrorCode::invalid_request, "bench: \"{}\" is a list", key);
  return list;
}

void read_experts(const JsonFields& fields, BenchOptions& options) {
  if (!fields.has("experts")) return;
  const Json& list = list_of(fields, "experts");
  const bool names =
      !list.empty() && std::all_of(list.begin(), list.end(), [](const Json& e) { return e.is_string(); });
  if (!names) {
    options.counts = positive_integers(list, "experts", 0);
    return;
  }
  options.names = list.get<std::vector<std::string>>();
  options.counts = {0, static_cast<int64_t>(options.names.size())};
}

BenchOptions bench_options_of(const char* text) {
  const Json json = text == nullptr ? Json::object() : json_of(text, "bench options");
  const JsonFields fields(json, "bench options", ErrorCode::invalid_request);
  require_known_keys(json);
  BenchOptions options;
  const expert_engine_options defaults = EXPERT_ENGINE_OPTIONS_INIT;
  options.engine = engine_options_of(&defaults);
  options.engine.base_model = fields.string_or("model", options.engine.base_model);
  options.engine.device = fields.string_or("device", options.engine.device);
  options.engine.weights = fields.string_or("weights", options.engine.weights);
  options.engine.kv = fields.string_or("kv", options.engine.kv);
  options.engine.home = fields.string_or("home", "");
  options.engine.threads = static_cast<int>(std::clamp<int64_t>(fields.integer_or("threads", 0), -1, 100'000));
  read_experts(fields, options);
  if (fields.has("prompt_tokens")) {
    options.prompt_tokens = positive_integers(list_of(fields, "prompt_tokens"), "prompt_tokens", 1);
  }
  options.decode_tokens =
      positive_integers(Json::array({fields.integer_or("decode_tokens", 64)}), "decode_tokens", 2)[0];
  options.repeat = positive_integers(Json::array({fields.integer_or("repeat", 3)}), "repeat", 1)[0];
  const auto read = [&](const char* key, int64_t fallback, int64_t least) {
    return positive_integers(Json::array({fields.integer_or(key, fallback)}), key, least)[0];
  };
  options.requests = read("requests", 0, 0);
  options.experts_per_request = read("experts_per_request", 1, 1);
  options.rank = read("rank", kRank, 1);
  return options;
}

Json load_bench(const BenchOptions& given, const Progress& progress) {
  LoadBenchOptions options;
  options.engine = given.engine;
  options.requests = given.requests;
  options.experts_per_request = given.experts_per_request;
  options.rank = given.rank;
  options.prompt_tokens = given.prompt_tokens.front();
  options.decode_tokens = given.decode_tokens;
  options.repeat = given.repeat;
  return run_load_bench(options, progress);
}

uint64_t peak_memory_bytes() {
#if defined(_WIN32)
  return 0;
#else
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

// A text of `tokens` tokens, or of the few more or less that the vocabulary allows.
std::string prompt_of(const Engine& engine, int64_t tokens) {
  const auto size_of = [&](int64_t words) {
    std::string text = "a";
    for (int64_t i = 1; i < words; ++i) text += " a";
    return std::pair(static_cast<int64_t>(engine.tokenize(text, true, true).size()), text);
  };
  int64_t low = 1;
  int64_t high = tokens + 1;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (size_of(middle).first <= tokens ? low : high) = middle;
  }
  return size_of(low).second;
}

// What is measured of one number of experts.
struct Row {
  LoadedExperts experts;
  std::vector<std::vector<double>> prefill;  // tokens/s by prompt length, one value per repetition
  std::vector<double> decode;
  std::vector<double> bandwidth;  // bytes/s beside each of them: the better of the read tests right before and after it
};

class Bench {
 public:
  Bench(const BenchOptions& options, Progress progress) : options_(options), progress_(std::move(progress)) {}

  Json run() {
    open();
    load_experts();
    for (Row& row : rows_) measure(row);  // warms up, and shows the peak before the probe takes memory of its own
    for (Row& row : rows_) forget(row);
    const uint64_t peak = peak_memory_bytes();
    const double bandwidth = repeat_rows();
    const Json swap = measure_swaps();
    const Json load_expert = measure_loads();
    progress_(1.0);
    Json report = {{"model", info_.value("model", "")},
                   {"weights", info_.value("weights", "")},
                   {"isa", info_.value("isa", "")},
                   {"threads", threads_},
                   {"bandwidth_gb_s", rounded(bandwidth / 1e9)}};
    for (const Row& row : rows_) report["rows"].push_back(report_of(row));
    report["swap_ms"] = swap;
    report["load_expert"] = load_expert;
    report["load_ms"] = rounded(load_ms_);
    report["peak_memory_bytes"] = peak;
    return report;
  }

 private:
  void open() {
    EngineOptions engine = options_.engine;
    engine.progress = [this](double fraction) { progress_(0.1 * fraction); };
    const auto start = Clock::now();
    engine_ = Engine::open(engine);
    load_ms_ = milliseconds_since(start);
    info_ = engine_->info();
    threads_ = info_.value("threads", 1);
    const std::string directory = info_.at("path").get<std::string>();
    config_ = ModelConfig::parse(read_json_file(join_path(directory, "config.json")), nullptr, directory);
    for (int64_t tokens : options_.prompt_tokens) prompts_.push_back(prompt_of(*engine_, tokens));
    decode_prompt_ = prompt_of(*engine_, kDecodePrompt);
    steps_ = static_cast<double>(options_.counts.size()) * static_cast<double>(options_.repeat + 1);
  }

  void load_experts() {
    sources_ = options_.names;
    const int64_t most = *std::max_element(options_.counts.begin(), options_.counts.end());
    for (int64_t i = 0; options_.names.empty() && i < std::max<int64_t>(most, kSwapExperts); ++i) {
      const std::filesystem::path directory = scratch_.path() / fmt::format("random-{}", i);
      write_random_expert(directory, config_, kRank, static_cast<uint64_t>(i) + 1);
      sources_.push_back(directory.string());
    }
    for (const std::string& source : sources_) {
      loaded_.push_back(engine_->load_expert(source));
      expert_bytes_.push_back(static_cast<double>(loaded_.back()->size_bytes()));
    }
    for (int64_t count : options_.counts) {
      rows_.emplace_back().experts.assign(loaded_.begin(), loaded_.begin() + count);
      rows_.back().prefill.resize(prompts_.size());
    }
  }

  std::shared_ptr<const Result> answer(const Row& row, const std::string& prompt, int64_t max_tokens) {
    Request request;
    request.prompt = prompt;
    request.raw = true;
    request.base_only = row.experts.empty();
    request.auto_experts = false;
    for (const auto& loaded : row.experts) request.experts.push_back({loaded, {}, 1.0F});
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = static_cast<int32_t>(max_tokens);
    request.sampling.ignore_eos = true;
    request.cache_salt = fmt::format("bench-{}", salt_++);  // nothing may come from an earlier run
    return engine_->submit(std::move(request))->wait(timeout_of(-1));
  }

  void measure(Row& row) {
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const auto result = answer(row, prompts_[i], 1);
      row.prefill[i].push_back(result->usage.prompt_tokens * 1000.0 / std::max(result->timings.prefill_ms, 1e-6));
    }
    row.decode.push_back(answer(row, decode_prompt_, options_.decode_tokens)->timings.tokens_per_second);
    progress_(0.1 + 0.85 * std::min(1.0, ++steps_done_ / steps_));
  }

  // Every row in turn, a read test between any two of them. Bytes per second: the best read test.
  double repeat_rows() {
    const BandwidthProbe probe(threads_);
    double before = probe.measure();
    double best = before;
    for (int64_t i = 0; i < options_.repeat; ++i) {
      for (Row& row : rows_) {
        measure(row);
        const double after = probe.measure();
        row.bandwidth.push_back(std::max(before, after));
        best = std::max(best, after);
        before = after;
      }
    }
    return best;
  }

  static void forget(Row& row) {
    for (auto& rates : row.prefill) rates.clear();
    row.decode.clear();
  }

  // What stands between two requests with different experts, all of them in memory: forming the set. With weights never
  // used before, and with those of a request before.
  Json measure_swaps() {
    std::vector<ExpertUse> uses;
    for (size_t i = 0; i < loaded_.size() && i < kSwapExperts; ++i) uses.push_back({loaded_[i], {}, 1.0F});
    std::vector<double> new_ms;
    std::vector<double> seen_ms;
    for (int round = 0; round < kSwapRounds; ++round) {
      for (ExpertUse& use : uses) use.weight = 0.5F + static_cast<float>(++weights_used_) * 0x1p-16F;
      for (std::vector<double>* times : {&new_ms, &seen_ms}) {
        const auto start = Clock::now();
        engine_->compose(uses);
        times->push_back(milliseconds_since(start));
      }
    }
    return {{"experts", uses.size()}, {"seen", percentiles_of(seen_ms)}, {"new", percentiles_of(new_ms)}};
  }

  // From files in the page cache to an expert that a request can use: files that were touched, so that they are hashed,
  // and files that are as they were when they were hashed last.
  Json measure_loads() {
    for (Row& row : rows_) row.experts.clear();
    for (const auto& loaded : loaded_) engine_->unload(loaded);
    loaded_.clear();
    if (!options_.names.empty()) return nullptr;  // other people's files are not touched
    std::vector<double> hashed_ms;
    std::vector<double> recognised_ms;
    while (hashed_ms.size() < kLoads) {
      for (const std::string& source : sources_) {
        std::filesystem::last_write_time(join_path(source, "adapter_model.safetensors"),
                                         std::filesystem::file_time_type::clock::now());
      }
      std::this_thread::sleep_for(kSettling);
      for (const std::string& source : sources_) {
        for (std::vector<double>* times : {&hashed_ms, &recognised_ms}) {
          const auto start = Clock::now();
          const auto loaded = engine_->load_expert(source);
          times->push_back(milliseconds_since(start));
          engine_->unload(loaded);
        }
      }
    }
    return {{"bytes", expert_bytes_.front()},
            {"hashed_ms", percentiles_of(hashed_ms)},
            {"recognised_ms", percentiles_of(recognised_ms)}};
  }

  static Json percentiles_of(const std::vector<double>& values) {
    return {{"p50", rounded(percentile(values, 0.5))}, {"p99", rounded(percentile(values, 0.99))}};
  }

  // How much longer a token takes than with the base alone, from neighbouring measurements; null without that row.
  Json slowdown_of(const Row& row) const {
    const auto base = std::find(options_.counts.begin(), options_.counts.end(), 0);
    if (base == options_.counts.end()) return nullptr;
    const std::vector<double>& alone = rows_[static_cast<size_t>(base - options_.counts.begin())].decode;
    std::vector<double> ratios;
    for (size_t i = 0; i < alone.size(); ++i) ratios.push_back(alone[i] / row.decode[i]);
    return rounded(median(ratios));
  }

  // Of the base: as measured where its head is read through a screen.
  double base_bytes() const {
    const Json stats = engine_->stats();
    const Json& screen = stats.at("head_screen");
    const Json& measured = screen.is_null() ? screen : screen.at("bytes_per_token");
    return (measured.is_null() ? stats.at("bytes_per_token") : measured).get<double>();
  }

  // Weights of the base and of the row's experts, and the keys and values of an answer half way through.
  double bytes_per_token(int64_t experts) const {
    const std::string format = info_.value("kv", "");
    const double per_kv = format == "f32" ? 4 : format == "bf16" ? 2 : 1 + 4.0 / config_.head_dim;
    const double context = kDecodePrompt + 0.5 * static_cast<double>(options_.decode_tokens);
    const double kv = 2.0 * config_.layers * config_.kv_heads * config_.head_dim * context * per_kv;
    const auto row = expert_bytes_.begin();
    return base_bytes() + kv + std::accumulate(row, row + experts, 0.0);
  }

  Json report_of(const Row& row) const {
    const size_t index = static_cast<size_t>(&row - rows_.data());
    const int64_t count = options_.counts[index];
    Json prefill = Json::object();
    for (size_t i = 0; i < prompts_.size(); ++i) {
      prefill[std::to_string(options_.prompt_tokens[i])] = rounded(median(row.prefill[i]));
    }
    const double decode = median(row.decode);
    const double bytes = bytes_per_token(count);
    std::vector<double> shares;
    for (size_t i = 0; i < row.decode.size(); ++i) shares.push_back(row.decode[i] * bytes / row.bandwidth[i]);
    return {{"experts", count},
            {"prefill_tokens_per_second", std::move(prefill)},
            {"decode_tokens_per_second", rounded(decode)},
            {"decode_time_over_base", slowdown_of(row)},
            {"bytes_per_token", std::round(bytes)},
            {"bandwidth_gb_s", rounded(median(row.bandwidth) / 1e9)},
            {"share_of_bandwidth", rounded(median(shares))}};
  }

  const BenchOptions& options_;
  Progress progress_;
  std::shared_ptr<Engine> engine_;
  Json info_;
  int threads_ = 1;
  double load_ms_ = 0;
  ModelConfig config_;
  std::vector<std::string> prompts_;
  std::string decode_prompt_;
  ScratchDirectory scratch_;
  std::vector<std::string> sources_;
  LoadedExperts loaded_;
  int weights_used_ = 0;
  std::vector<double> expert_bytes_;
  std::vector<Row> rows_;
  double steps_ = 1;
  double steps_done_ = 0;
  uint64_t salt_ = 0;
};

}  // namespace

}  // namespace expert::capi

using namespace expert;
using namespace expert::capi;

expert_status expert_bench(const char* options, expert_progress_callback progress, void* user_data, char** out_json) {
  return guard([&] {
    require(out_json, "out_json") = nullptr;
    const BenchOptions given = bench_options_of(options);
    const Progress report = [&](double fraction) {
      if (progress != nullptr && progress(user_data, fraction) != 0) throw Error(ErrorCode::cancelled, "cancelled");
    };
    *out_json = give_text(dump(given.requests > 0 ? load_bench(given, report) : Bench(given, report).run()));
  });
}
