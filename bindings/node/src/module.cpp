// The C interface for JavaScript, as thin as it can be. Checking, defaults and friendly names are lib/'s part, and only
// lib/ calls what is here. What may take time runs on another thread and gives a promise.
#include <array>
#include <string>
#include <vector>

#include "addon.h"
#include "camel.h"
#include "engines.h"
#include "request.h"
#include "running.h"

namespace expert_node {

namespace {

using Info = Napi::CallbackInfo;

// Empty after close(), so that the memory goes when the last call that runs is done.
struct EngineBox {
  EngineHandle handle;
};

// Node refuses where a worker is being terminated: then nobody else would free the value.
template <typename T>
Napi::Value wrap(Napi::Env env, T value) {
  auto owned = std::make_unique<T>(std::move(value));
  const auto external = Napi::External<T>::New(env, owned.get(), [](Napi::Env /*env*/, T* finished) { delete finished; });
  owned.release();
  return external;
}

template <typename T>
T& unwrap(const Napi::Value& value) {
  return *value.As<Napi::External<T>>().Data();
}

// Its failure becomes a JavaScript exception.
template <typename Body>
Napi::Value guarded(Napi::Env env, Body&& body) {
  try {
    return body();
  } catch (const Failure& failure) {
    throw Napi::Error(env, Addon::of(env).error(env, failure));
  }
}

EngineHandle engine_of(const Info& info) {
  const EngineHandle handle = unwrap<EngineBox>(info[0]).handle;
  if (handle == nullptr) {
    throw Napi::Error(
        info.Env(), Addon::of(info.Env())
                        .error(info.Env(), {EXPERT_ERROR_CLOSED, "the engine was closed", "make a new ExpertEngine"}));
  }
  return handle;
}

std::string text(const Info& info, size_t index) { return info[index].As<Napi::String>().Utf8Value(); }
uint32_t flags(const Info& info, size_t index) { return info[index].As<Napi::Number>().Uint32Value(); }

Napi::Value in_pool(const Info& info, Work work) {
  return Addon::of(info.Env()).promise(info.Env(), Place::pool, std::move(work));
}
Napi::Value in_thread(const Info& info, Work work) {
  return Addon::of(info.Env()).promise(info.Env(), Place::thread, std::move(work));
}

// ---- calls that run long: they report how far they are and can be stopped ------------------------------------------

// The user data of an expert_progress_callback.
struct Progress {
  std::shared_ptr<Channel> channel;
  uint64_t callback = 0;  // 0: nobody listens
  Flag stopped;

  static int report(void* user_data, double fraction) {
    const auto& self = *static_cast<Progress*>(user_data);
    if (self.callback != 0) {
      self.channel->post([id = self.callback, fraction](Napi::Env env) {
        Addon::of(env).call(env, id, {Napi::Number::New(env, fraction)});
      });
    }
    return *self.stopped || work_ends() ? 1 : 0;
  }
};

// (…, flag, onProgress | undefined); the callback is dropped by lib/ through dropCallback().
Progress progress_of(const Info& info, size_t index) {
  Progress out{Addon::of(info.Env()).channel(), 0, unwrap<Flag>(info[index])};
  if (info[index + 1].IsNumber()) {
    out.callback = static_cast<uint64_t>(info[index + 1].As<Napi::Number>().Int64Value());
  }
  return out;
}

Napi::Value make_flag(const Info& info) { return wrap(info.Env(), std::make_shared<std::atomic<bool>>(false)); }
void set_flag(const Info& info) { *unwrap<Flag>(info[0]) = true; }

Napi::Value keep_callback(const Info& info) {
  const uint64_t id = Addon::of(info.Env()).keep(info[0].As<Napi::Function>(), true);
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}
void drop_callback(const Info& info) {
  Addon::of(info.Env()).drop(info.Env(), static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
}

// ---- engine --------------------------------------------------------------------------------------------------------

struct Options {
  OptionalText base_model, device, weights, kv, rope_scaling, home;
  expert_engine_options numbers = EXPERT_ENGINE_OPTIONS_INIT;

  explicit Options(const Napi::Object& given)
      : base_model(optional_text(given.Get("baseModel"))),
        device(optional_text(given.Get("device"))),
        weights(optional_text(given.Get("weights"))),
        kv(optional_text(given.Get("kv"))),
        rope_scaling(optional_text(given.Get("ropeScaling"))),
        home(optional_text(given.Get("home"))) {
    numbers.context_size = given.Get("contextSize").As<Napi::Number>().Int64Value();
    numbers.memory_limit = static_cast<uint64_t>(given.Get("memoryLimit").As<Napi::Number>().Int64Value());
    numbers.threads = given.Get("threads").As<Napi::Number>().Int32Value();
    numbers.max_queue = given.Get("maxQueue").As<Napi::Number>().Int32Value();
    numbers.max_batch = given.Get("maxBatch").As<Napi::Number>().Int32Value();
    numbers.max_experts = given.Get("maxExperts").As<Napi::Number>().Int32Value();
    const Napi::Value prefixes = given.Get("prefixCacheBytes");
    if (prefixes.IsNumber()) {
      numbers.prefix_cache_bytes = static_cast<uint64_t>(prefixes.As<Napi::Number>().Int64Value());
    }
    numbers.expert_cache_bytes = static_cast<uint64_t>(given.Get("expertCacheBytes").As<Napi::Number>().Int64Value());
    numbers.flags = given.Get("flags").As<Napi::Number>().Uint32Value();
  }
  expert_engine_options view(Progress& progress) const {
    expert_engine_options out = numbers;
    out.base_model = or_null(base_model);
    out.device = or_null(device);
    out.weights = or_null(weights);
    out.kv = or_null(kv);
    out.rope_scaling = or_null(rope_scaling);
    out.home = or_null(home);
    out.progress = Progress::report;
    out.progress_user_data = &progress;
    return out;
  }
};

// open(options, flag, callback)
Napi::Value open(const Info& info) {
  const Options options(info[0].As<Napi::Object>());
  return in_thread(info, [options, progress = progress_of(info, 1)]() mutable -> Convert {
    const expert_engine_options view = options.view(progress);
    expert_engine* engine = nullptr;
    check(expert_engine_open(&view, &engine));
    return [handle = hold_engine(engine)](Napi::Env env) { return wrap(env, EngineBox{handle}); };
  });
}

// close(engine, flags)
Napi::Value close(const Info& info) {
  EngineBox& box = unwrap<EngineBox>(info[0]);
  const EngineHandle handle = std::move(box.handle);
  box.handle = nullptr;
  return in_thread(info, [handle, bits = flags(info, 1)] {
    if (handle != nullptr) check(expert_engine_close(handle.get(), bits));
    return nothing();
  });
}

// For the event 'exit' of the process.
void end_process(const Info& /*info*/) { end_all(); }

Napi::Value is_closed(const Info& info) {
  const EngineHandle& handle = unwrap<EngineBox>(info[0]).handle;
  return Napi::Boolean::New(info.Env(), expert_engine_closed(handle.get()) != 0);
}

template <expert_status (*Ask)(const expert_engine*, char**)>
Napi::Value engine_text(const Info& info) {
  return in_pool(info,
                 [engine = engine_of(info)] { return text_from([&](char** out) { return Ask(engine.get(), out); }); });
}

template <expert_status (*Ask)(const expert_engine*, int32_t*)>
Napi::Value engine_number(const Info& info) {
  return guarded(info.Env(), [&] {
    int32_t value = 0;
    check(Ask(engine_of(info).get(), &value));
    return Napi::Number::New(info.Env(), value);
  });
}

// ---- experts -------------------------------------------------------------------------------------------------------

Convert expert_of(expert_expert* loaded) {
  const ExpertHandle handle(loaded, expert_expert_free);
  return [handle](Napi::Env env) -> Napi::Value {
    Napi::Object out = Napi::Object::New(env);
    out.Set("handle", wrap(env, handle));
    out.Set("name", expert_expert_name(handle.get()));
    out.Set("version", expert_expert_version(handle.get()));
    out.Set("kinds", expert_expert_kinds(handle.get()));
    out.Set("manifest", expert_expert_manifest(handle.get()));
    out.Set("warnings", expert_expert_warnings(handle.get()));
    out.Set("sizeBytes", Napi::Number::New(env, static_cast<double>(expert_expert_size_bytes(handle.get()))));
    return out;
  };
}

// load(engine, source)
Napi::Value load(const Info& info) {
  return in_pool(info, [engine = engine_of(info), source = text(info, 1)] {
    expert_expert* loaded = nullptr;
    check(expert_load(engine.get(), source.c_str(), &loaded));
    return expert_of(loaded);
  });
}

// find(engine, name)
Napi::Value find(const Info& info) {
  return in_pool(info, [engine = engine_of(info), name = text(info, 1)] {
    expert_expert* found = nullptr;
    check(expert_engine_find(engine.get(), name.c_str(), &found));
    return expert_of(found);
  });
}

// unload(engine, expert)
Napi::Value unload(const Info& info) {
  return in_pool(info, [engine = engine_of(info), expert = unwrap<ExpertHandle>(info[1])] {
    check(expert_unload(engine.get(), expert.get()));
    return nothing();
  });
}

Napi::Value is_unloaded(const Info& info) {
  return Napi::Boolean::New(info.Env(), expert_expert_unloaded(unwrap<ExpertHandle>(info[0]).get()) != 0);
}

// ---- requests ------------------------------------------------------------------------------------------------------

// plan(result): JSON with keys in camelCase
Napi::Value plan(const Info& info) {
  return Napi::String::New(info.Env(), camel_keys(expert_result_plan(info[0].As<Napi::External<expert_result>>().Data())));
}

// The request whose numbers were left before: (…, prompt, experts, rest).
std::unique_ptr<const Request> request_of(const Info& info, size_t index) {
  const double* numbers = Addon::of(info.Env()).request_numbers;
  return std::make_unique<const Request>(numbers, info[index], info[index + 1], info[index + 2]);
}

// start(engine, how, prompt, experts, rest)
Napi::Value start(const Info& info) {
  const uint64_t id = Running::start(info.Env(), engine_of(info), request_of(info, 2), flags(info, 1));
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}

void cancel(const Info& info) {
  const auto id = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
  if (const auto running = Addon::of(info.Env()).find(id)) running->cancel();
}

void set_listener(const Info& info) { Addon::of(info.Env()).set_listener(info[0].As<Napi::Function>()); }

Napi::Value request_numbers(const Info& info) {
  Addon& addon = Addon::of(info.Env());
  return addon.shared_numbers(info.Env(), kNumbers, addon.request_numbers);
}

Napi::Value result_figures(const Info& info) {
  Addon& addon = Addon::of(info.Env());
  return addon.shared_numbers(info.Env(), kFigures, addon.result_figures);
}

Napi::Value finish_reasons(const Info& info) {
  const auto out = Napi::Array::New(info.Env());
  for (int32_t reason = EXPERT_FINISH_STOP; reason <= EXPERT_FINISH_ERROR; ++reason) {
    const char* name = expert_finish_reason_name(static_cast<expert_finish_reason>(reason));
    out.Set(static_cast<uint32_t>(reason), Napi::String::New(info.Env(), name));
  }
  return out;
}

// route(engine, prompt, rest)
Napi::Value route(const Info& info) {
  const EngineHandle engine = engine_of(info);
  const std::shared_ptr<const Request> request = request_of(info, 1);
  return in_pool(info, [engine, request] {
    return text_from([&](char** out) {
      return request->with_view([&](const expert_request* view) { return expert_route(engine.get(), view, out); });
    });
  });
}

// ---- text and evaluation -------------------------------------------------------------------------------------------

// The bytes of an Int32Array.
std::vector<int32_t> ids_of(const Napi::Value& value) {
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// tokenize(engine, text, flags)
Napi::Value tokenize(const Info& info) {
  return in_pool(info, [engine = engine_of(info), input = text(info, 1), bits = flags(info, 2)]() -> Convert {
    int32_t* given = nullptr;
    size_t count = 0;
    check(expert_tokenize(engine.get(), input.data(), input.size(), bits, &given, &count));
    const Tokens owned(given);
    std::vector<int32_t> ids(given, given + count);
    return [ids = std::move(ids)](Napi::Env env) -> Napi::Value {
      Napi::Array out = Napi::Array::New(env, ids.size());
      for (size_t i = 0; i < ids.size(); ++i) out.Set(static_cast<uint32_t>(i), Napi::Number::New(env, ids[i]));
      return out;
    };
  });
}

// detokenize(engine, ids, flags)
Napi::Value detokenize(const Info& info) {
  return in_pool(info, [engine = engine_of(info), ids = ids_of(info[1]), bits = flags(info, 2)] {
    char* given = nullptr;
    size_t length = 0;
    check(expert_detokenize(engine.get(), ids.data(), ids.size(), bits, &given, &length));
    return string_of(Text(given), length);
  });
}

// applyChatTemplate(engine, messages, tools | null, variables | null, flags)
Napi::Value apply_chat_template(const Info& info) {
  return in_pool(info, [engine = engine_of(info), messages = text(info, 1), tools = optional_text(info[2]),
                        variables = optional_text(info[3]), bits = flags(info, 4)] {
    char* given = nullptr;
    size_t length = 0;
    check(expert_apply_chat_template(engine.get(), messages.c_str(), or_null(tools), or_null(variables), bits, &given,
                                     &length));
    return string_of(Text(given), length);
  });
}

// Hands the memory over instead of copying it on JavaScript's thread.
Convert float_array(std::vector<float> values) {
  const auto shared = std::make_shared<std::vector<float>>(std::move(values));
  return [shared](Napi::Env env) -> Napi::Value {
    auto owner = std::make_unique<std::shared_ptr<std::vector<float>>>(shared);
    const auto buffer = Napi::ArrayBuffer::New(env, shared->data(), shared->size() * sizeof(float),
                                               [held = owner.get()](Napi::Env /*env*/, void* /*data*/) { delete held; });
    owner.release();
    return Napi::Float32Array::New(env, shared->size(), buffer, 0);
  };
}

int32_t size_of(expert_status (*ask)(const expert_engine*, int32_t*), const EngineHandle& engine) {
  int32_t size = 0;
  check(ask(engine.get(), &size));
  return size;
}

// logits(engine, ids, experts)
Napi::Value logits(const Info& info) {
  const EngineHandle engine = engine_of(info);
  return in_thread(info, [engine, ids = ids_of(info[1]), uses = Uses(info[2].As<Napi::Array>())] {
    const auto columns = static_cast<size_t>(size_of(expert_engine_vocab_size, engine));
    std::vector<float> out(ids.size() * columns);
    const auto experts = uses.view();
    check(expert_logits(engine.get(), ids.data(), ids.size(), experts.data(), experts.size(), out.data(), out.size()));
    return float_array(std::move(out));
  });
}

// embed(engine, text, pooling, flags, experts)
Napi::Value embed(const Info& info) {
  const EngineHandle engine = engine_of(info);
  return in_thread(info, [engine, input = text(info, 1), pooling = text(info, 2), bits = flags(info, 3),
                          uses = Uses(info[4].As<Napi::Array>())] {
    std::vector<float> out(static_cast<size_t>(size_of(expert_engine_hidden_size, engine)));
    const auto experts = uses.view();
    check(expert_embed(engine.get(), input.data(), input.size(), pooling.c_str(), experts.data(), experts.size(), bits,
                       out.data(), out.size()));
    return float_array(std::move(out));
  });
}

// ---- installed experts and models; the first argument is always home or null ----------------------------------------

using HomeCall = Convert (*)(const char* home, const std::vector<OptionalText>& texts, uint32_t bits);

Napi::Value at_home(const Info& info, HomeCall call) {
  std::vector<OptionalText> texts;
  uint32_t bits = 0;
  for (size_t i = 1; i < info.Length(); ++i) {
    if (info[i].IsNumber()) {
      bits = flags(info, i);
    } else {
      texts.push_back(optional_text(info[i]));
    }
  }
  return in_thread(info,
                   [call, home = optional_text(info[0]), texts, bits] { return call(or_null(home), texts, bits); });
}

using Texts = const std::vector<OptionalText>&;

Napi::Value package_install(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t bits) {
    return text_from([&](char** out) { return expert_package_install(home, or_null(texts[0]), bits, out); });
  });
}
Napi::Value package_uninstall(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    check(expert_package_uninstall(home, or_null(texts[0])));
    return nothing();
  });
}
Napi::Value package_list(const Info& info) {
  return at_home(info, [](const char* home, Texts /*texts*/, uint32_t bits) {
    return text_from([&](char** out) { return expert_package_list(home, bits, out); });
  });
}
Napi::Value package_info(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    return text_from([&](char** out) { return expert_package_info(home, or_null(texts[0]), out); });
  });
}
Napi::Value package_verify(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    return text_from([&](char** out) { return expert_package_verify(home, or_null(texts[0]), out); });
  });
}
Napi::Value package_update(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t bits) {
    return text_from([&](char** out) { return expert_package_update(home, or_null(texts[0]), bits, out); });
  });
}
Napi::Value package_create(const Info& info) {
  return at_home(info, [](const char* /*home*/, Texts texts, uint32_t /*bits*/) {
    return text_from([&](char** out) {
      return expert_package_create(or_null(texts[0]), or_null(texts[1]), or_null(texts[2]), out);
    });
  });
}
Napi::Value package_sign(const Info& info) {
  return at_home(info, [](const char* /*home*/, Texts texts, uint32_t /*bits*/) {
    check(expert_package_sign(or_null(texts[0]), or_null(texts[1])));
    return nothing();
  });
}
Napi::Value key_generate(const Info& info) {
  return at_home(info, [](const char* /*home*/, Texts texts, uint32_t /*bits*/) {
    return text_from([&](char** out) { return expert_key_generate(or_null(texts[0]), or_null(texts[1]), out); });
  });
}
Napi::Value trust_add(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    check(expert_trust_add(home, or_null(texts[0]), or_null(texts[1])));
    return nothing();
  });
}
Napi::Value trust_remove(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    check(expert_trust_remove(home, or_null(texts[0])));
    return nothing();
  });
}
Napi::Value trust_list(const Info& info) {
  return at_home(info, [](const char* home, Texts /*texts*/, uint32_t /*bits*/) {
    return text_from([&](char** out) { return expert_trust_list(home, out); });
  });
}
Napi::Value model_add(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    return text_from([&](char** out) { return expert_model_add(home, or_null(texts[0]), or_null(texts[1]), out); });
  });
}
Napi::Value model_remove(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    check(expert_model_remove(home, or_null(texts[0])));
    return nothing();
  });
}
Napi::Value model_set_default(const Info& info) {
  return at_home(info, [](const char* home, Texts texts, uint32_t /*bits*/) {
    check(expert_model_set_default(home, or_null(texts[0])));
    return nothing();
  });
}
Napi::Value model_list(const Info& info) {
  return at_home(info, [](const char* home, Texts /*texts*/, uint32_t /*bits*/) {
    return text_from([&](char** out) { return expert_model_list(home, out); });
  });
}

// ---- the library ---------------------------------------------------------------------------------------------------

// bench(options, flag, callback)
Napi::Value bench(const Info& info) {
  return in_thread(info, [options = text(info, 0), progress = progress_of(info, 1)]() mutable {
    return text_from([&](char** out) { return expert_bench(options.c_str(), Progress::report, &progress, out); });
  });
}

// One receiver per process; the last environment that asked hears it.
struct LogReceiver {
  std::mutex mutex;
  std::shared_ptr<Channel> channel;
  uint64_t callback = 0;

  static LogReceiver& get() {
    static LogReceiver& receiver = *new LogReceiver;
    return receiver;
  }
  static void hear(void* /*user_data*/, expert_log_level level, const char* message) {
    LogReceiver& self = get();
    const std::lock_guard lock(self.mutex);
    if (self.channel == nullptr) return;
    self.channel->post([id = self.callback, level, line = std::string(message)](Napi::Env env) {
      Addon::of(env).call(env, id, {Napi::Number::New(env, level), Napi::String::New(env, line)});
    });
  }
};

// setLogCallback(callback id | 0, level)
void set_log_callback(const Info& info) {
  LogReceiver& receiver = LogReceiver::get();
  const auto callback = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
  const auto least = static_cast<expert_log_level>(info[1].As<Napi::Number>().Int32Value());
  {
    const std::lock_guard lock(receiver.mutex);
    receiver.channel = callback != 0 ? Addon::of(info.Env()).channel() : nullptr;
    receiver.callback = callback;
  }
  expert_set_log_callback(callback != 0 ? LogReceiver::hear : nullptr, nullptr, least);
}

Napi::Value library_info(const Info& info) {
  return guarded(info.Env(),
                 [&] { return text_from([](char** out) { return expert_library_info(out); })(info.Env()); });
}

Napi::Value default_home(const Info& info) {
  return guarded(info.Env(), [&] { return text_from([](char** out) { return expert_home(out); })(info.Env()); });
}

void set_error_factory(const Info& info) { Addon::of(info.Env()).set_error_factory(info[0].As<Napi::Function>()); }

template <typename Function>
void add(Napi::Object& exports, const char* name, Function function) {
  exports.Set(name, Napi::Function::New(exports.Env(), function, name));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Addon(env));
  exports.Set("version", expert_version());
  add(exports, "setErrorFactory", set_error_factory);
  add(exports, "makeFlag", make_flag);
  add(exports, "setFlag", set_flag);
  add(exports, "keepCallback", keep_callback);
  add(exports, "dropCallback", drop_callback);
  add(exports, "open", open);
  add(exports, "close", close);
  add(exports, "endProcess", end_process);
  add(exports, "isClosed", is_closed);
  add(exports, "info", engine_text<expert_engine_info>);
  add(exports, "stats", engine_text<expert_engine_stats>);
  add(exports, "metrics", engine_text<expert_engine_metrics>);
  add(exports, "experts", engine_text<expert_engine_experts>);
  add(exports, "vocabSize", engine_number<expert_engine_vocab_size>);
  add(exports, "hiddenSize", engine_number<expert_engine_hidden_size>);
  add(exports, "contextSize", engine_number<expert_engine_context_size>);
  add(exports, "load", load);
  add(exports, "find", find);
  add(exports, "unload", unload);
  add(exports, "isUnloaded", is_unloaded);
  add(exports, "start", start);
  add(exports, "cancel", cancel);
  add(exports, "plan", plan);
  add(exports, "setListener", set_listener);
  add(exports, "requestNumbers", request_numbers);
  add(exports, "resultFigures", result_figures);
  add(exports, "finishReasons", finish_reasons);
  add(exports, "route", route);
  add(exports, "tokenize", tokenize);
  add(exports, "detokenize", detokenize);
  add(exports, "applyChatTemplate", apply_chat_template);
  add(exports, "logits", logits);
  add(exports, "embed", embed);
  add(exports, "packageInstall", package_install);
  add(exports, "packageUninstall", package_uninstall);
  add(exports, "packageList", package_list);
  add(exports, "packageInfo", package_info);
  add(exports, "packageVerify", package_verify);
  add(exports, "packageUpdate", package_update);
  add(exports, "packageCreate", package_create);
  add(exports, "packageSign", package_sign);
  add(exports, "keyGenerate", key_generate);
  add(exports, "trustAdd", trust_add);
  add(exports, "trustRemove", trust_remove);
  add(exports, "trustList", trust_list);
  add(exports, "modelAdd", model_add);
  add(exports, "modelRemove", model_remove);
  add(exports, "modelSetDefault", model_set_default);
  add(exports, "modelList", model_list);
  add(exports, "bench", bench);
  add(exports, "setLogCallback", set_log_callback);
  add(exports, "libraryInfo", library_info);
  add(exports, "home", default_home);
  return exports;
}

}  // namespace

// Not in the anonymous namespace of which the macro makes a function.
static Napi::Object initialise(Napi::Env env, Napi::Object exports) { return init(env, exports); }
NODE_API_MODULE(expert, initialise)

}  // namespace expert_node
