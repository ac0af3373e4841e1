#include "running.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "camel.h"

namespace expert_node {

namespace {

constexpr size_t kArguments = 10;  // of the listener

// What the library gives back at the end, when it will not call again.
using Self = std::shared_ptr<Running>;

Napi::Value to_array(Napi::Env env, const int32_t* tokens, size_t count) {
  Napi::Array out = Napi::Array::New(env, count);
  for (size_t i = 0; i < count; ++i) out.Set(static_cast<uint32_t>(i), Napi::Number::New(env, tokens[i]));
  return out;
}

Napi::Value to_string(Napi::Env env, std::string_view text) { return Napi::String::New(env, text.data(), text.size()); }

// The double that prints as short as the float does, as in the JSON: 0.3, not 0.30000001192092896.
double shortest(float value) {
  char digits[32] = {};
  static_cast<void>(std::to_chars(digits, digits + sizeof digits - 1, value));
  return std::strtod(digits, nullptr);
}

bool same_experts(const std::vector<ToldExpert>& told, const expert_result* result) {
  if (told.size() != expert_result_expert_count(result)) return false;
  for (size_t i = 0; i < told.size(); ++i) {
    const char* name = "";
    const char* version = "";
    float weight = 0;
    check(expert_result_expert(result, i, &name, &version, &weight));
    if (told[i].weight != weight || told[i].name != name || told[i].version != version) return false;
  }
  return true;
}

// [name, version, weight, name, …]; undefined without experts, null for those that were told last.
Napi::Value experts_of(Napi::Env env, const expert_result* result) {
  const size_t count = expert_result_expert_count(result);
  if (count == 0) return env.Undefined();
  std::vector<ToldExpert>& told = Addon::of(env).told_experts;
  if (same_experts(told, result)) return env.Null();
  told.clear();
  Napi::Array out = Napi::Array::New(env, 3 * count);
  for (size_t i = 0; i < count; ++i) {
    const char* name = "";
    const char* version = "";
    float weight = 0;
    check(expert_result_expert(result, i, &name, &version, &weight));
    told.push_back({name, version, weight});
    const auto place = static_cast<uint32_t>(3 * i);
    out.Set(place, Napi::String::New(env, name));
    out.Set(place + 1, Napi::String::New(env, version));
    out.Set(place + 2, Napi::Number::New(env, shortest(weight)));
  }
  return out;
}

// The collector does not see what a result holds in memory of the library, so it is told.
constexpr int64_t kResultBytes = 4096;

// For plan_of().
Napi::Value keep(Napi::Env env, Result result) {
  const auto kept = Napi::External<expert_result>::New(env, result.get(), [](Napi::Env here, expert_result* finished) {
    expert_result_free(finished);
    Napi::MemoryManagement::AdjustExternalMemory(here, -kResultBytes);
  });
  static_cast<void>(result.release());
  Napi::MemoryManagement::AdjustExternalMemory(env, kResultBytes);
  return kept;
}

// In the order in which lib/results.js reads them.
void write_figures(const expert_result* result, double* figures) {
  expert_usage usage = EXPERT_USAGE_INIT;
  expert_timings timings = EXPERT_TIMINGS_INIT;
  check(expert_result_usage(result, &usage));
  check(expert_result_timings(result, &timings));
  const double values[kFigures] = {static_cast<double>(expert_result_finish_reason(result)),
                                   static_cast<double>(usage.prompt_tokens),
                                   static_cast<double>(usage.completion_tokens),
                                   static_cast<double>(usage.total_tokens),
                                   static_cast<double>(usage.prompt_virtual_tokens),
                                   static_cast<double>(usage.cached_tokens),
                                   timings.queue_ms,
                                   timings.prefill_ms,
                                   timings.first_token_ms,
                                   timings.decode_ms,
                                   timings.total_ms,
                                   timings.tokens_per_second};
  std::copy(std::begin(values), std::end(values), figures);
}

// listener(id, error, text, tokens, document, text, output, tokens, experts, result): an error; or a chunk's text
// and tokens; and with the last one the result, as JSON or in fields beside the figures.
void tell(Napi::Env env, const std::vector<napi_value>& arguments) {
  Addon::of(env).listener().As<Napi::Function>().Call(env.Undefined(), arguments);
}

}  // namespace

uint64_t Running::start(Napi::Env env, EngineHandle engine, std::unique_ptr<const Request> request, uint32_t how) {
  Addon& addon = Addon::of(env);
  auto running = std::make_shared<Running>();
  running->channel_ = addon.channel();
  running->how_ = how;
  running->end_fd_ = (how & kResultOnly) != 0 ? addon.end_fd() : -1;
  const uint64_t id = running->id_ = addon.add(env, running);
  if (request->light() && running->submit_and_listen(engine, *request, /*only_if_quick=*/true)) return id;
  run_in_pool([running, engine = std::move(engine), request = std::shared_ptr<const Request>(std::move(request))] {
    running->submit_and_listen(engine, *request, /*only_if_quick=*/false);
  });
  return id;
}

bool Running::submit_and_listen(const EngineHandle& engine, const Request& request, bool only_if_quick) noexcept {
  try {
    return submit(engine, request, only_if_quick);
  } catch (const Failure& failure) {
    fail(failure);
  } catch (const std::exception& error) {
    fail({EXPERT_ERROR_INTERNAL, error.what(), ""});
  }
  return true;
}

bool Running::submit(const EngineHandle& engine, const Request& request, bool only_if_quick) {
  expert_stream* submitted = nullptr;
  check(request.with_view([&](const expert_request* view) { return expert_submit(engine.get(), view, &submitted); },
                          only_if_quick ? EXPERT_REQUEST_IF_QUICK : 0));
  if (submitted == nullptr) return false;
  {
    const std::lock_guard lock(mutex_);
    stream_.reset(submitted);
    engine_ = engine;
    if (cancelled_) expert_cancel(submitted);
    // Under the lock: JavaScript's thread may hear of the end before we go on.
    signals_ = end_fd_ >= 0 && expert_stream_signal_end(submitted, end_fd_) == EXPERT_OK;
    if (signals_) return true;
  }
  const auto hear = [](void* self, const expert_chunk* chunk, const expert_error* error) {
    if (chunk != nullptr || error != nullptr) return (*static_cast<Self*>(self))->hear(chunk, error);
    delete static_cast<Self*>(self);
    return 0;
  };
  auto self = std::make_unique<Self>(shared_from_this());
  const uint32_t flags = (how_ & kResultOnly) != 0 ? EXPERT_LISTEN_RESULT_ONLY : 0;
  check(expert_stream_listen(submitted, flags, hear, self.get()));
  self.release();
  return true;
}

int Running::hear(const expert_chunk* chunk, const expert_error* error) {
  if (error != nullptr) {
    fail({error->status, error->message, error->hint});
    return 0;
  }
  size_t length = 0;
  const char* bytes = expert_chunk_text(chunk, &length);
  size_t count = 0;
  const int32_t* ids = expert_chunk_tokens(chunk, &count);
  const expert_result* result = expert_chunk_result(chunk);
  // JSON is made here rather than on JavaScript's thread.
  std::string json = result != nullptr && (how_ & kDocument) != 0 ? camel_keys(expert_result_json(result)) : "";
  channel_->post([self = shared_from_this(), text = std::string(bytes, length), tokens = std::vector(ids, ids + count),
                  last = result != nullptr, json = std::move(json)](Napi::Env env) {
    std::vector<napi_value> arguments = {Napi::Number::New(env, static_cast<double>(self->id_)), env.Null(),
                                         to_string(env, text), to_array(env, tokens.data(), tokens.size())};
    if (!last) return tell(env, arguments);
    self->add_result(env, self->result(), json, arguments);
    self->end(env, arguments);
  });
  return 0;
}

// Of a request that has ended.
Result Running::result() const {
  expert_result* given = nullptr;
  check(expert_stream_wait(stream_.get(), 0, &given));
  return Result(given);
}

void Running::add_result(Napi::Env env, Result owned, const std::string& json,
                         std::vector<napi_value>& arguments) const {
  if ((how_ & kDocument) != 0) return arguments.push_back(to_string(env, json));
  const expert_result* result = owned.get();
  write_figures(result, Addon::of(env).result_figures);
  size_t length = 0;
  const char* bytes = expert_result_text(result, &length);
  const std::string_view text(bytes, length);
  bytes = expert_result_output(result, &length);
  const std::string_view output(bytes, length);
  size_t count = 0;
  const int32_t* ids = expert_result_tokens(result, &count);
  arguments.insert(arguments.end(), {env.Undefined(), to_string(env, text),
                                     output == text ? env.Undefined() : to_string(env, output),
                                     to_array(env, ids, count)});
  const Napi::Value kept = keep(env, std::move(owned));
  // Last: what is noted as told must be told.
  arguments.insert(arguments.end(), {experts_of(env, result), kept});
}

bool Running::signalled_end() {
  const std::lock_guard lock(mutex_);
  return signals_ && expert_stream_done(stream_.get()) != 0;
}

void Running::finish(Napi::Env env) {
  std::vector<napi_value> arguments;
  arguments.reserve(kArguments);
  arguments.push_back(Napi::Number::New(env, static_cast<double>(id_)));
  try {
    Result ended = result();
    const std::string json = (how_ & kDocument) != 0 ? camel_keys(expert_result_json(ended.get())) : "";
    arguments.insert(arguments.end(), {env.Null(), env.Undefined(), env.Undefined()});
    add_result(env, std::move(ended), json, arguments);
  } catch (const Failure& failure) {
    arguments.push_back(Addon::of(env).error(env, failure));
  }
  end(env, arguments);
}

void Running::fail(Failure failure) {
  channel_->post([self = shared_from_this(), failure = std::move(failure)](Napi::Env env) {
    self->end(env, {Napi::Number::New(env, static_cast<double>(self->id_)), Addon::of(env).error(env, failure)});
  });
}

void Running::end(Napi::Env env, const std::vector<napi_value>& arguments) {
  {
    const std::lock_guard lock(mutex_);
    engine_.reset();
    stream_.reset();
  }
  Addon::of(env).remove(env, id_);
  tell(env, arguments);
}

void Running::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (stream_ != nullptr) expert_cancel(stream_.get());
}

}  // namespace expert_node
