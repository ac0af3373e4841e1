#include "bench_load.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "adapters/adapter_set.h"
#include "bench_model.h"
#include "core/error.h"
#include "io/file.h"
#include "io/json.h"
#include "models/config.h"

namespace expert::capi {

namespace {

using LoadClock = std::chrono::steady_clock;
constexpr int64_t kMostLoadExperts = 64;

double three_decimals(double value) { return std::round(value * 1000) / 1000; }

Json percentiles_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double fraction) {
    const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
    return three_decimals(values[std::max<size_t>(rank, 1) - 1]);
  };
  return {{"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}};
}

// What one kind of load gave, over all repetitions.
struct LoadResults {
  std::vector<double> rates, wall_ms, queue_ms, first_token_ms, token_ms, total_ms;

  void add(const std::vector<std::shared_ptr<const Result>>& results, double milliseconds) {
    double tokens = 0;
    for (const auto& result : results) {
      const Timings& timings = result->timings;
      tokens += result->usage.completion_tokens;
      queue_ms.push_back(timings.queue_ms);
      first_token_ms.push_back(timings.first_token_ms);
      total_ms.push_back(timings.total_ms);
      if (timings.tokens_per_second > 0) token_ms.push_back(1000 / timings.tokens_per_second);
    }
    rates.push_back(tokens * 1000 / milliseconds);
    wall_ms.push_back(milliseconds);
  }
  double rate() const { return percentiles_of(rates)["p50"].get<double>(); }
  Json report() const {
    Json out = {{"tokens_per_second", rate()},
                {"wall_ms", percentiles_of(wall_ms)["p50"]},
                {"queue_ms", percentiles_of(queue_ms)},
                {"first_token_ms", percentiles_of(first_token_ms)}};
    if (!token_ms.empty()) out["token_ms"] = percentiles_of(token_ms);
    out["total_ms"] = percentiles_of(total_ms);
    return out;
  }
};

class LoadBench {
 public:
  LoadBench(const LoadBenchOptions& options, const std::function<void(double)>& progress)
      : options_(options), progress_(progress) {}

  Json run() {
    open();
    load_experts();
    LoadResults base, with_experts;
    for (int64_t i = 0; i < options_.repeat; ++i) {
      draw(false, base);
      progress_(0.2 + 0.8 * (static_cast<double>(i) + 0.5) / static_cast<double>(options_.repeat));
      draw(true, with_experts);
      progress_(0.2 + 0.8 * static_cast<double>(i + 1) / static_cast<double>(options_.repeat));
    }
    const Json info = engine_->info();
    return {{"model", info.at("model")},
            {"weights", info.at("weights")},
            {"kv", info.at("kv")},
            {"isa", info.at("isa")},
            {"threads", info.at("threads")},
            {"requests", options_.requests},
            {"experts_per_request", options_.experts_per_request},
            {"experts", experts_.size()},
            {"rank", options_.rank},
            {"prompt_tokens", options_.prompt_tokens},
            {"decode_tokens", options_.decode_tokens},
            {"base", base.report()},
            {"with_experts", with_experts.report()},
            {"share_of_base", three_decimals(with_experts.rate() / base.rate())}};
  }

 private:
  void open() {
    EngineOptions engine = options_.engine;
    engine.max_queue = static_cast<int32_t>(std::max<int64_t>(engine.max_queue, options_.requests));
    engine.max_batch = static_cast<int32_t>(std::clamp<int64_t>(options_.requests, 1, kMostLoadExperts));
    engine.progress = [this](double fraction) { progress_(0.1 * fraction); };
    engine_ = Engine::open(engine);
  }

  void load_experts() {
    const std::string directory = engine_->info().at("path").get<std::string>();
    const auto config = ModelConfig::parse(read_json_file(join_path(directory, "config.json")), nullptr, directory);
    const int64_t named = options_.requests * options_.experts_per_request;
    const int64_t count = options_.experts > 0 ? options_.experts : std::min(named, kMostLoadExperts);
    for (int64_t i = 0; i < count; ++i) {
      const std::filesystem::path path = scratch_.path() / fmt::format("random-{}", i);
      write_random_expert(path, config, options_.rank, static_cast<uint64_t>(i) + 1);
      experts_.push_back(engine_->load_expert(path.string()));
      progress_(0.1 + 0.1 * static_cast<double>(i + 1) / static_cast<double>(count));
    }
  }

  Request request_of(int64_t number, bool with_experts) const {
    Request request;
    request.prompt = "a";
    for (int64_t i = 1; i < options_.prompt_tokens; ++i) request.prompt += " a";
    request.raw = true;
    request.base_only = !with_experts;
    request.auto_experts = false;
    for (int64_t i = 0; with_experts && i < options_.experts_per_request; ++i) {
      const auto at = static_cast<size_t>(number * options_.experts_per_request + i) % experts_.size();
      request.experts.push_back({experts_[at], {}, 1.0F});
    }
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = static_cast<int32_t>(options_.decode_tokens);
    request.sampling.ignore_eos = true;
    return request;
  }

  // All at once, and each prompt computed in full.
  void draw(bool with_experts, LoadResults& into) {
    std::vector<std::shared_ptr<Generation>> running;
    std::vector<std::shared_ptr<const Result>> results;
    const auto start = LoadClock::now();
    for (int64_t i = 0; i < options_.requests; ++i) {
      Request request = request_of(i, with_experts);
      request.cache_salt = fmt::format("load-{}", salt_++);
      running.push_back(engine_->submit(std::move(request)));
    }
    for (const auto& generation : running) results.push_back(generation->wait(std::chrono::hours(24)));
    into.add(results, std::chrono::duration<double, std::milli>(LoadClock::now() - start).count());
  }

  const LoadBenchOptions& options_;
  const std::function<void(double)>& progress_;
  ScratchDirectory scratch_;
  std::shared_ptr<Engine> engine_;
  std::vector<std::shared_ptr<const LoadedExpert>> experts_;
  uint64_t salt_ = 0;
};

}  // namespace

Json run_load_bench(const LoadBenchOptions& options, const std::function<void(double fraction)>& progress) {
  if (options.experts_per_request > kDefaultMaxExperts) {
    fail(ErrorCode::invalid_request, "bench: {} experts per request, at most {}", options.experts_per_request,
         kDefaultMaxExperts);
  }
  return LoadBench(options, progress).run();
}

}  // namespace expert::capi
