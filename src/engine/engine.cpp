#include "engine/engine.h"

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <mutex>
#include <stop_token>
#include <thread>

#include "core/log.h"
#include "engine/assembly.h"
#include "engine/base_model.h"
#include "engine/evaluation_task.h"
#include "engine/fork_guard.h"
#include "engine/memory_budget.h"
#include "engine/preparation.h"
#include "engine/step_loop.h"
#include "io/file.h"
#include "io/json.h"
#include "io/sha256.h"

namespace expert {
namespace {

namespace fs = std::filesystem;

WeightChoice weight_choice(const std::string& name) {
  if (name.empty() || name == "auto") return WeightChoice::automatic;
  if (name == "f32") return WeightChoice::f32;
  if (name == "bf16") return WeightChoice::bf16;
  if (name == "int8") return WeightChoice::int8;
  if (name == "int4") return WeightChoice::int4;
  if (name == "int4-all") return WeightChoice::int4_all;
  throw Error(ErrorCode::invalid_request, fmt::format("weights \"{}\" are unknown", name),
              "use auto, f32, bf16, int8, int4 or int4-all");
}

DType kv_dtype(const std::string& name, WeightFormat weights) {
  if (name.empty() || name == "auto") return weights == WeightFormat::f32 ? DType::f32 : DType::bf16;
  if (name == "f32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  if (name == "int8") return DType::i8;
  throw Error(ErrorCode::invalid_request, fmt::format("a KV cache in \"{}\" is unknown", name),
              "use auto, f32, bf16 or int8");
}

void check_options(const EngineOptions& options) {
  const auto check = [](int64_t value, int64_t least, const char* name) {
    if (value < least) fail(ErrorCode::invalid_request, "{} is {}, must be {} or more", name, value, least);
  };
  check(options.context_size, 0, "context_size");
  check(options.threads, 0, "threads");
  check(options.max_queue, 1, "max_queue");
  check(options.max_batch, 1, "max_batch");
  check(options.stream_queue, 1, "stream_queue");
  check(options.max_experts, 1, "max_experts");
  static_cast<void>(weight_choice(options.weights));
  static_cast<void>(kv_dtype(options.kv, WeightFormat::f32));
}

// Without a home directory there is nothing installed, which is no reason not to run.
std::optional<Store> open_store(const fs::path& home) {
  if (!home.empty()) return Store(home.string());
  try {
    return Store(default_home());
  } catch (const Error&) {
    return std::nullopt;
  }
}

const char* kv_name(DType dtype) { return dtype == DType::bf16 ? "bf16" : dtype == DType::i8 ? "int8" : "f32"; }

// What every key and value of an engine depends on: a part of the name that a prefix has in its cache.
std::string base_key(const EngineParts& parts, const std::string& fingerprint) {
  const Model& model = *parts.model;
  const RopeConfig& rope = model.config().rope;
  std::string key = fmt::format("{}|{}|{}|{}|{}|{}", fingerprint, model.config().architecture,
                                weights_name(model.weight_format(), model.head_format()),
                                kv_name(parts.loop.kv_dtype), model.context_size(), parts.backend->info().isa);
  return key + fmt::format("|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", rope.type, rope.theta, rope.factor, rope.original_context,
                           rope.attention_factor.value_or(-1), rope.mscale, rope.mscale_all_dim, rope.beta_fast,
                           rope.beta_slow, rope.truncate, rope.low_freq_factor, rope.high_freq_factor);
}

// Of the device where the backend has one, else of this machine.
uint64_t free_memory_of(const Backend& backend) {
  const uint64_t device = backend.free_memory();
  return device != UINT64_MAX ? device : free_memory();
}

// One full context, or a quarter of the free memory, or what memory_limit leaves: whichever is least.
int32_t kv_blocks(const Model& model, const Backend& backend, DType dtype, uint64_t memory_limit) {
  const auto full = static_cast<uint64_t>(BlockPool::blocks_for(model.context_size()));
  uint64_t budget = free_memory_of(backend) / 4;
  if (memory_limit != 0) {
    const uint64_t weights = model.weight_bytes();
    budget = std::min(budget, memory_limit > weights ? memory_limit - weights : 0);
  }
  const uint64_t block_bytes = kv_block_bytes(model.kv_shape(1, dtype));
  const uint64_t blocks = std::min(full, budget / block_bytes);
  if (blocks == 0) {
    throw Error(ErrorCode::out_of_memory,
                fmt::format("no memory is left for a KV cache: weights take {} bytes, a block of {} positions {} bytes",
                            model.weight_bytes(), kKvBlockTokens, block_bytes),
                "raise memory_limit, or use a smaller model");
  }
  return static_cast<int32_t>(blocks);
}

// On a thread of its own, behind everything else. Writes the cache, which saves time at the next start; where the weights
// came from it, keeps them in huge pages, which an idle engine may lose, as long as there is work.
void tend_weights(const Model& model, const StepLoop& loop, const std::stop_token& stop) noexcept {
  constexpr auto kFirstPause = std::chrono::seconds(2);  // whoever has just opened an engine wants its answer
  constexpr auto kPause = std::chrono::seconds(30);
#if defined(__linux__)
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 19));
#endif
  try {
    model.write_weight_cache(stop);
    std::mutex mutex;
    std::condition_variable_any never;
    const auto rest = [&](std::chrono::seconds pause) {
      std::unique_lock lock(mutex);
      never.wait_for(lock, stop, pause, [] { return false; });
      return !stop.stop_requested();
    };
    if (!rest(kFirstPause)) return;
    while (model.restore_huge_pages(stop)) {
      const uint64_t steps = loop.stats().steps;
      do {
        if (!rest(kPause)) return;
      } while (loop.stats().steps == steps);
    }
  } catch (const std::exception& error) {
    log(LogLevel::warning, fmt::format("the weight cache was not tended: {}", error.what()));
  }
}

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(EngineParts parts);
  ~EngineImpl() override;

  std::shared_ptr<const LoadedExpert> load_expert(const std::string& source) override {
    return open_core().registry->load(source);
  }
  void unload(const std::shared_ptr<const LoadedExpert>& handle) override { open_core().registry->unload(handle); }
  std::vector<std::shared_ptr<const LoadedExpert>> experts() const override { return open_core().registry->loaded(); }

  std::string compose(std::span<const ExpertUse> experts) override {
    const Core& core = open_core();
    Composition composition = core.preparation->compose_uses(experts);
    if (composition.base_alone()) return {};
    core.registry->claim(std::move(composition.experts), Clock::now(), ExpertCache::Turn::first)->wait();
    return to_hex(std::as_bytes(std::span(composition.hash)));
  }

  std::shared_ptr<Generation> submit(Request request) override;
  Json route(const Request& request) const override { return open_core().preparation->route(request); }

  std::vector<int32_t> tokenize(std::string_view text, bool special_in_text, bool add_special) const override {
    return open_core().parts.tokenizer->encode(text, {special_in_text, add_special});
  }
  std::string detokenize(std::span<const int32_t> ids, bool skip_special) const override {
    return open_core().parts.tokenizer->decode(ids, skip_special);
  }
  std::string apply_chat_template(const Json& messages, const Json& tools, bool add_generation_prompt,
                                  const Json& variables) const override;
  int32_t vocab_size() const noexcept override { return core_->parts.model->config().vocab_size; }
  int32_t hidden_size() const noexcept override { return core_->parts.model->config().hidden_size; }
  std::vector<float> logits(std::span<const int32_t> ids, std::span<const ExpertUse> experts) override;
  std::vector<float> embed(std::string_view text, const std::string& pooling, bool normalize,
                           std::span<const ExpertUse> experts) override;

  Json info() const override;
  Json stats() const override;
  std::string metrics() const override { return prometheus_text(stats(), *open_core().counters); }
  void close(bool drain) override;

 private:
  // Everything that has threads or locks; a child process after fork() leaves it alone.
  struct Core {
    EngineParts parts;
    std::shared_ptr<ExpertRegistry> registry;
    std::unique_ptr<Preparation> preparation;
    std::shared_ptr<Counters> counters = std::make_shared<Counters>();
    std::unique_ptr<StepLoop> loop;
    std::jthread weight_keeper;
    std::string fingerprint;  // of the base's published tensors
    std::string base_key;
    std::atomic<bool> closed{false};
  };

  Core& open_core() const;
  std::shared_ptr<Generation> accept(Core& core, const Request& request, Clock::time_point submitted);
  void enqueue(Core& core, PreparedRequest prepared, const Request& request, std::shared_ptr<Stream> stream,
               Clock::time_point submitted) const;
  static Json tiers_of(const Core& core, const ExpertCacheStats& cache, bool on_device);
  static Json head_screen_of(const Core& core);
  PrefixRoot prefix_of(const PreparedRequest& prepared, const std::string& salt) const;
  std::vector<float> evaluate(std::vector<int32_t> ids, std::span<const ExpertUse> experts, Sequence::Output output,
                              Sequence::Rows rows, int32_t width);

  ForkGuard fork_guard_;
  std::unique_ptr<Core> core_;
};

EngineImpl::EngineImpl(EngineParts parts) : core_(std::make_unique<Core>()) {
  Core& core = *core_;
  core.parts = std::move(parts);
  const EngineParts& own = core.parts;
  const uint64_t kv_bytes = static_cast<uint64_t>(own.loop.kv_blocks) * kv_block_bytes(own.model->kv_shape(1, own.loop.kv_dtype));

  core.fingerprint = own.model->fingerprint();
  core.base_key = base_key(own, core.fingerprint);

  RegistryOptions registry;
  registry.backend = own.backend;
  registry.model = own.model;
  registry.model_directory = own.base.directory;
  registry.base_names = own.base.names;
  registry.bundled_experts = own.base.experts;
  registry.store = own.store;
  registry.cache_directory = own.cache_directory;
  if (own.memory_limit != 0) {
    const uint64_t taken = own.model->weight_bytes() + kv_bytes;
    registry.memory.memory_limit = std::max<uint64_t>(own.memory_limit - std::min(own.memory_limit, taken), 1);
  }
  registry.memory.budget = own.expert_cache_bytes != 0 ? own.expert_cache_bytes
                                                       : std::max(free_memory_of(*own.backend) / 4, uint64_t{1} << 28);
  registry.max_experts = own.max_experts;
  registry.counters = core.counters;
  registry.changed = [&core] { core.loop->look_again(); };
  registry.on_read = own.on_expert_read;
  core.registry = std::make_shared<ExpertRegistry>(std::move(registry));

  Preparation::Parts preparation;
  preparation.model = own.model;
  preparation.tokenizer = own.tokenizer;
  preparation.chat_template = own.chat_template;
  preparation.registry = core.registry;
  preparation.generation_config = own.generation_config;
  preparation.max_experts = own.max_experts;
  preparation.kv_positions = int64_t{own.loop.kv_blocks} * kKvBlockTokens;
  preparation.counters = core.counters;
  core.preparation = std::make_unique<Preparation>(std::move(preparation));

  StepLoopOptions loop = own.loop;
  loop.prefetch = [&core](std::span<ExpertLease* const> leases) { core.registry->cache().put_in_order(leases); };
  core.loop = std::make_unique<StepLoop>(own.backend, own.model, core.counters, loop);
  if (own.write_weight_cache) {
    core.weight_keeper = std::jthread(
        [model = own.model, &core](const std::stop_token& stop) { tend_weights(*model, *core.loop, stop); });
  }
}

EngineImpl::~EngineImpl() {
  if (fork_guard_.inherited()) {
    static_cast<void>(core_.release());
    return;
  }
  close(false);
}

EngineImpl::Core& EngineImpl::open_core() const {
  fork_guard_.check();
  if (core_->closed.load()) fail(ErrorCode::closed, "the engine was closed");
  return *core_;
}

PrefixRoot EngineImpl::prefix_of(const PreparedRequest& prepared, const std::string& salt) const {
  PrefixKey key;
  key.base = core_->base_key;
  // The hash of a set also names its soft prompts, and their order; their rows shift the tokens' positions.
  std::string rows;
  if (prepared.experts) {
    key.adapters = as_text(std::as_bytes(std::span(prepared.set_hash)));
    key.soft_prompt = rows = std::to_string(prepared.experts->soft_prompt_rows());
  }
  key.salt = salt;
  return prefix_root(key);
}

std::shared_ptr<Generation> EngineImpl::submit(Request request) {
  const Clock::time_point submitted = Clock::now();
  Core& core = open_core();
  try {
    return accept(core, request, submitted);
  } catch (const ExpertRegistry::MustRead&) {
    return nullptr;
  } catch (...) {
    ++core.counters->refused;
    throw;
  }
}

std::shared_ptr<Generation> EngineImpl::accept(Core& core, const Request& request, Clock::time_point submitted) {
  PreparedRequest prepared = core.preparation->prepare(request);
  auto stream = std::make_shared<Stream>(static_cast<size_t>(core.parts.stream_queue));
  // An expert that was chosen for the caller must not fail the caller: then the base answers.
  if (prepared.chosen_by_router && prepared.experts) {
    prepared.otherwise = [this, &core, request, stream, submitted](const Error& why) {
      enqueue(core, core.preparation->prepare_base_alone(request, why), request, stream, submitted);
    };
  }
  enqueue(core, std::move(prepared), request, stream, submitted);
  ++core.counters->requests;
  return make_generation(std::move(stream));
}

void EngineImpl::enqueue(Core& core, PreparedRequest prepared, const Request& request, std::shared_ptr<Stream> stream,
                         Clock::time_point submitted) const {
  prepared.prefix = prefix_of(prepared, request.cache_salt);
  prepared.trace = request.trace;
  core.loop->submit(std::make_unique<GenerationTask>(std::move(prepared), core.parts.tokenizer, std::move(stream),
                                                     core.counters, submitted));
}

std::string EngineImpl::apply_chat_template(const Json& messages, const Json& tools, bool add_generation_prompt,
                                            const Json& variables) const {
  const auto& chat_template = open_core().parts.chat_template;
  if (chat_template == nullptr) fail(ErrorCode::invalid_request, "the model has no chat template");
  ChatTemplate::Options options;
  options.tools = tools;
  options.add_generation_prompt = add_generation_prompt;
  options.variables = variables;
  return chat_template->render(messages, options);
}

std::vector<float> EngineImpl::evaluate(std::vector<int32_t> ids, std::span<const ExpertUse> experts,
                                        Sequence::Output output, Sequence::Rows rows, int32_t width) {
  Core& core = open_core();
  Composition composition = core.preparation->compose_uses(experts);
  core.preparation->check_tokens(ids, composition);
  auto task = std::make_unique<EvaluationTask>(
      std::move(ids), core.registry->claim(std::move(composition.experts), Clock::now()), output, rows, width);
  auto result = task->result();
  core.loop->submit(std::move(task));
  return result.get();
}

std::vector<float> EngineImpl::logits(std::span<const int32_t> ids, std::span<const ExpertUse> experts) {
  return evaluate({ids.begin(), ids.end()}, experts, Sequence::Output::logits, Sequence::Rows::all,
                  open_core().parts.model->config().vocab_size);
}

std::vector<float> EngineImpl::embed(std::string_view text, const std::string& pooling, bool normalize,
                                     std::span<const ExpertUse> experts) {
  if (pooling != "last" && pooling != "mean") {
    fail(ErrorCode::invalid_request, "pooling is \"{}\", must be \"last\" or \"mean\"", pooling);
  }
  Core& core = open_core();
  std::vector<int32_t> ids =
      core.parts.tokenizer->encode(text, {/*special_in_text=*/true, /*add_post_processor=*/true});
  if (ids.empty()) fail(ErrorCode::invalid_request, "the text is empty");
  const auto width = static_cast<size_t>(core.parts.model->config().hidden_size);
  const auto rows = pooling == "mean" ? Sequence::Rows::all : Sequence::Rows::last;
  const std::vector<float> states =
      evaluate(std::move(ids), experts, Sequence::Output::hidden, rows, static_cast<int32_t>(width));

  std::vector<double> sum(width, 0.0);
  for (size_t i = 0; i < states.size(); ++i) sum[i % width] += static_cast<double>(states[i]);
  double scale = static_cast<double>(width) / static_cast<double>(states.size());
  if (normalize) {
    double squares = 0;
    for (const double value : sum) squares += value * value;
    scale = squares > 0 ? 1.0 / std::sqrt(squares) : 0.0;
  }
  std::vector<float> pooled(width);
  for (size_t i = 0; i < width; ++i) pooled[i] = static_cast<float>(sum[i] * scale);
  return pooled;
}

Json EngineImpl::info() const {
  const Core& core = open_core();
  const EngineParts& parts = core.parts;
  const ModelConfig& config = parts.model->config();
  const BackendInfo& backend = parts.backend->info();
  Json warnings = config.warnings;
  if (parts.chat_template) {
    for (const std::string& problem : parts.chat_template->problems()) warnings.push_back(problem);
  }
  const int64_t positions = core.loop->kv_positions();
  if (positions < parts.model->context_size()) {
    warnings.push_back(
        fmt::format("the KV cache holds {} of the context's {} positions", positions, parts.model->context_size()));
  }
  return {{"model", parts.base.names.empty() ? "" : parts.base.names.front()},
          {"path", parts.base.directory.string()},
          {"architecture", config.architecture},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"layers", config.layers},
          {"fingerprint", core.fingerprint.empty() ? Json() : Json(core.fingerprint)},
          {"weights", weights_name(parts.model->weight_format(), parts.model->head_format())},
          {"weight_cache", parts.model->loaded_from_cache()},
          {"kv", kv_name(parts.loop.kv_dtype)},
          {"device", backend.device},
          {"isa", backend.isa},
          {"threads", backend.threads},
          {"context_size", parts.model->context_size()},
          {"chat_template", parts.chat_template != nullptr},
          {"warnings", std::move(warnings)}};
}

// Experts in use lie where the backend computes: in the host's memory, or in a device's. The other one of both tiers has
// nothing of its own, and says so by name; the numbers stay under `host` as well, where the metrics read them.
Json EngineImpl::tiers_of(const Core& core, const ExpertCacheStats& cache, bool on_device) {
  const Json used = {{"budget_bytes", core.registry->cache().options().budget},
                     {"budget_used_bytes", cache.used_bytes},
                     {"bytes", cache.bytes},
                     {"experts", cache.experts},
                     {"pinned", cache.pinned},
                     {"loading", cache.loading},
                     {"hits", cache.hits},
                     {"evictions", cache.evictions},
                     {"evicted_bytes", cache.evicted_bytes}};
  Json host = used;
  if (on_device) host["same_as"] = "device";
  const Json device = on_device ? used : Json{{"same_as", "host"}};
  return {{"device", device},
          {"host", host},
          {"disk",
           {{"bytes", core.registry->installed_bytes()},
            {"loads", cache.loads},
            {"loaded_bytes", cache.loaded_bytes},
            {"failures", cache.failures}}}};
}

// Null where the head has none.
Json EngineImpl::head_screen_of(const Core& core) {
  const Model& model = *core.parts.model;
  if (model.head_screen_bytes() == 0) return {};
  const ScreenStats read = core.parts.backend->screen_stats();
  Json per_token;
  if (read.calls > 0) per_token = model.bytes_per_token() - model.head_bytes() + read.bytes / read.calls;
  return {{"bytes", model.head_screen_bytes()},
          {"calls", read.calls},
          {"read_bytes", read.bytes},
          {"whole", read.whole},
          {"bytes_per_token", std::move(per_token)}};
}

Json EngineImpl::stats() const {
  const Core& core = open_core();
  const StepStats steps = core.loop->stats();
  const Counters& counters = *core.counters;
  Json finished;
  for (const FinishReason reason : {FinishReason::stop, FinishReason::length, FinishReason::timeout,
                                    FinishReason::cancelled, FinishReason::error}) {
    finished[name_of(reason)] = counters.finished[static_cast<size_t>(reason)].load();
  }
  const uint64_t weights = core.parts.model->weight_bytes();
  const ExpertCacheStats cache = core.registry->cache().stats();
  const uint64_t experts = cache.bytes;
  return {{"requests",
           {{"submitted", counters.requests.load()},
            {"refused", counters.refused.load()},
            {"running", steps.running},
            {"waiting", steps.waiting},
            {"finished", std::move(finished)}}},
          {"tokens", {{"prompt", counters.prompt_tokens.load()}, {"completion", counters.completion_tokens.load()}}},
          {"steps", {{"count", steps.steps}, {"failed", steps.failed_steps}, {"rows", steps.rows}}},
          {"kv",
           {{"blocks_total", steps.blocks.total},
            {"blocks_used", steps.blocks.used},
            {"blocks_kept", steps.blocks.kept},
            {"block_tokens", kKvBlockTokens},
            {"bytes", steps.kv_bytes}}},
          {"prefix_cache",
           {{"lookups", steps.schedule.prefix_lookups},
            {"hits", steps.schedule.prefix_hits},
            {"prompt_tokens", steps.schedule.prompt_tokens},
            {"cached_tokens", steps.schedule.cached_tokens},
            {"evictions", steps.blocks.evictions},
            {"deduplicated_blocks", steps.blocks.deduplicated}}},
          {"schedule",
           {{"admissions", steps.schedule.admissions},
            {"preemptions", steps.schedule.preemptions},
            {"recomputed_tokens", steps.schedule.recomputed_tokens}}},
          {"memory",
           {{"weights_bytes", weights},
            {"experts_bytes", experts},
            {"kv_bytes", steps.kv_bytes},
            {"total_bytes", weights + experts + steps.kv_bytes},
            {"limit_bytes", core.parts.memory_limit}}},
          {"experts",
           {{"loaded", core.registry->loaded().size()},
            {"waiting", cache.waiting},
            {"tiers", tiers_of(core, cache, core.parts.backend->free_memory() != UINT64_MAX)}}},
          {"histograms", counters.histograms()},
          {"bytes_per_token", core.parts.model->bytes_per_token()},
          {"head_screen", head_screen_of(core)},
          {"load_ms", core.parts.load_ms}};
}

void EngineImpl::close(bool drain) {
  fork_guard_.check();
  core_->closed.store(true);
  core_->weight_keeper.request_stop();
  core_->loop->close(drain);
  core_->registry->close();
}

}  // namespace

std::shared_ptr<Engine> assemble_engine(EngineParts parts) { return std::make_shared<EngineImpl>(std::move(parts)); }

std::shared_ptr<Engine> Engine::open(const EngineOptions& options) {
  const Clock::time_point started = Clock::now();
  check_options(options);
  EngineParts parts;
  parts.store = open_store(options.home);
  parts.base = locate_base(options.base_model, parts.store ? &*parts.store : nullptr);

  BackendOptions backend;
  backend.device = options.device;
  const char* device = std::getenv("EXPERT_DEVICE");
  if (backend.device.empty() || backend.device == "auto") backend.device = device != nullptr ? device : "auto";
  backend.threads = options.threads;
  parts.backend = make_backend(backend);

  ModelOptions model;
  model.weights = weight_choice(options.weights);
  model.rope_scaling = options.rope_scaling;
  model.context_size = options.context_size;
  model.head_screen = options.head_screen;
  model.memory_limit = options.memory_limit;
  model.progress = options.progress;
  if (options.use_weight_cache && parts.store) model.cache_dir = parts.store->cache_directory();
  // The tokenizer is parsed beside the weights, or after them where no thread can be had.
  auto tokenizer = std::async([&] { return Tokenizer::load(parts.base.directory); });
  parts.model = Model::load(parts.base.directory, *parts.backend, model);
  parts.tokenizer = tokenizer.get();
  parts.chat_template = ChatTemplate::load(parts.base.directory);
  parts.generation_config = layer_of(parts.model->config().generation);

  parts.memory_limit = options.memory_limit;
  parts.expert_cache_bytes = options.expert_cache_bytes;
  if (options.memory_limit != 0 && parts.model->weight_bytes() > options.memory_limit) {
    fail(ErrorCode::out_of_memory, "the weights take {} bytes, memory_limit is {}", parts.model->weight_bytes(),
         options.memory_limit);
  }
  parts.loop.kv_dtype = kv_dtype(options.kv, parts.model->weight_format());
  const uint64_t block_bytes = kv_block_bytes(parts.model->kv_shape(1, parts.loop.kv_dtype));
  parts.loop.most_kept = static_cast<int32_t>(std::min<uint64_t>(options.prefix_cache_bytes / block_bytes, INT32_MAX));
  parts.loop.kv_blocks = kv_blocks(*parts.model, *parts.backend, parts.loop.kv_dtype, options.memory_limit);
  parts.loop.max_batch = options.max_batch;
  parts.loop.max_queue = options.max_queue;
  parts.stream_queue = options.stream_queue;
  parts.max_experts = options.max_experts;
  parts.cache_directory = model.cache_dir.string();
  parts.write_weight_cache = options.use_weight_cache;
  parts.load_ms = std::chrono::duration<double, std::milli>(Clock::now() - started).count();
  return assemble_engine(std::move(parts));
}

}  // namespace expert
