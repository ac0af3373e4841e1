#include "convert.h"

#include <cmath>
#include <cstdlib>

#include "handles.h"
#include "io/json.h"

namespace expert::capi {

namespace {

constexpr size_t kFirstEngineOptions = offsetof(expert_engine_options, max_experts);
constexpr size_t kFirstRequest = sizeof(expert_request);
constexpr std::chrono::nanoseconds kForEver = std::chrono::hours(24 * 365 * 50);

std::optional<float> optional_of(float value) { return std::isnan(value) ? std::nullopt : std::optional<float>(value); }

std::optional<int32_t> optional_of(int32_t value) {
  return value == EXPERT_UNSET_INT ? std::nullopt : std::optional<int32_t>(value);
}

SamplingOptions sampling_of(const expert_request& request) {
  SamplingOptions sampling;
  sampling.temperature = optional_of(request.temperature);
  sampling.top_p = optional_of(request.top_p);
  sampling.min_p = optional_of(request.min_p);
  sampling.repetition_penalty = optional_of(request.repetition_penalty);
  sampling.presence_penalty = optional_of(request.presence_penalty);
  sampling.frequency_penalty = optional_of(request.frequency_penalty);
  sampling.top_k = optional_of(request.top_k);
  sampling.max_tokens = optional_of(request.max_tokens);
  sampling.logprobs = request.logprobs;
  if (request.seed != EXPERT_UNSET_SEED) sampling.seed = request.seed;
  for (const char* stop : span_of(request.stop, request.stop_count, "request.stop")) {
    sampling.stop.emplace_back(&require(stop, "an element of request.stop"));
  }
  const auto tokens = span_of(request.logit_bias_tokens, request.logit_bias_count, "request.logit_bias_tokens");
  const auto values = span_of(request.logit_bias_values, request.logit_bias_count, "request.logit_bias_values");
  for (size_t i = 0; i < tokens.size(); ++i) sampling.logit_bias.emplace_back(tokens[i], values[i]);
  sampling.ignore_eos = (request.flags & EXPERT_REQUEST_IGNORE_EOS) != 0;
  return sampling;
}

std::string string_or(const char* given, const char* fallback) { return given != nullptr ? given : fallback; }

}  // namespace

std::string_view text_of(const char* text, size_t length) {
  if (text == nullptr) return {};
  return length == EXPERT_NUL_TERMINATED ? std::string_view(text) : std::string_view(text, length);
}

Json json_of(const char* text, const char* what) {
  return text == nullptr ? Json() : Json(parse_json(text, what, {}, ErrorCode::invalid_request));
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

EngineOptions engine_options_of(const expert_engine_options* given) {
  const expert_engine_options defaults = EXPERT_ENGINE_OPTIONS_INIT;
  const expert_engine_options options =
      given == nullptr ? defaults : overlay(given, defaults, kFirstEngineOptions, "options");
  require_flags(options.flags, EXPERT_ENGINE_NO_WEIGHT_CACHE | EXPERT_ENGINE_NO_HEAD_SCREEN, "options");
  EngineOptions out;
  out.base_model = string_or(options.base_model, "");
  out.device = string_or(options.device, "auto");
  out.weights = string_or(options.weights, "auto");
  out.kv = string_or(options.kv, "auto");
  out.rope_scaling = json_of(options.rope_scaling, "options.rope_scaling");
  out.home = string_or(options.home, "");
  out.context_size = options.context_size;
  out.memory_limit = options.memory_limit;
  out.threads = options.threads;
  out.max_queue = options.max_queue;
  out.max_batch = options.max_batch;
  if (options.max_experts != 0) out.max_experts = options.max_experts;
  out.prefix_cache_bytes = options.prefix_cache_bytes;
  out.expert_cache_bytes = options.expert_cache_bytes;
  out.use_weight_cache = (options.flags & EXPERT_ENGINE_NO_WEIGHT_CACHE) == 0;
  out.head_screen = (options.flags & EXPERT_ENGINE_NO_HEAD_SCREEN) == 0;
  if (options.progress != nullptr) {
    out.progress = [callback = options.progress, user_data = options.progress_user_data](double fraction) {
      if (callback(user_data, fraction) != 0) throw Error(ErrorCode::cancelled, "loading was cancelled");
    };
  }
  return out;
}

std::vector<ExpertUse> uses_of(const expert_use* experts, size_t count) {
  std::vector<ExpertUse> uses;
  for (const expert_use& use : span_of(experts, count, "experts")) {
    if ((use.expert == nullptr) == (use.name == nullptr)) {
      fail(ErrorCode::invalid_request, "experts[{}] needs a handle or a name, and not both", uses.size());
    }
    ExpertUse& out = uses.emplace_back();
    if (use.expert != nullptr) {
      out.expert = use.expert->held.share();
    } else {
      out.name = use.name;
    }
    out.weight = use.weight;
  }
  return uses;
}

Request request_of(const expert_request* given, uint32_t flags) {
  const expert_request request = overlay(given, expert_request EXPERT_REQUEST_INIT, kFirstRequest, "request");
  require_flags(request.flags, flags, "request");
  const bool base_only = (request.flags & EXPERT_REQUEST_BASE_ONLY) != 0;
  if (base_only && request.expert_count != 0) {
    fail(ErrorCode::invalid_request, "EXPERT_REQUEST_BASE_ONLY with {} experts", request.expert_count);
  }
  if (request.prompt != nullptr && request.messages != nullptr) {
    fail(ErrorCode::invalid_request, "a request has a prompt or messages, not both");
  }
  Request out;
  out.prompt = text_of(request.prompt, request.prompt_length);
  out.messages = json_of(request.messages, "messages");
  out.tools = json_of(request.tools, "tools");
  out.template_variables = json_of(request.template_variables, "template_variables");
  out.raw = (request.flags & EXPERT_REQUEST_RAW) != 0;
  out.special_in_text = (request.flags & EXPERT_REQUEST_PLAIN_TEXT) == 0;
  out.schema = text_of(request.schema, request.schema_length);
  out.body = text_of(request.body, request.body_length);
  out.experts = uses_of(request.experts, request.expert_count);
  out.base_only = base_only;
  out.auto_experts = !base_only && out.experts.empty();
  out.sampling = sampling_of(request);
  out.priority = request.priority;
  out.deadline_ms = request.deadline_ms;
  out.caller = string_or(request.caller, "");
  out.cache_salt = string_or(request.cache_salt, "");
  out.trace = (request.flags & EXPERT_REQUEST_TRACE) != 0;
  out.only_if_quick = (request.flags & EXPERT_REQUEST_IF_QUICK) != 0;
  return out;
}

bool waits_for_ever(int64_t timeout_ms) { return timeout_ms < 0; }

std::chrono::nanoseconds timeout_of(int64_t timeout_ms) {
  if (waits_for_ever(timeout_ms) || timeout_ms > kForEver / std::chrono::milliseconds(1)) return kForEver;
  return std::chrono::milliseconds(timeout_ms);
}

namespace {

// The double that prints as short as the float does: 0.3, not 0.30000001192092896.
double shortest(float value) { return std::stod(fmt::format("{}", value)); }

Json logprobs_of(const std::vector<TokenLogprobs>& positions) {
  Json out = Json::array();
  for (const TokenLogprobs& position : positions) {
    Json top = Json::array();
    for (const auto& [token, logprob] : position.top) top.push_back({{"token", token}, {"logprob", shortest(logprob)}});
    out.push_back({{"token", position.token}, {"logprob", shortest(position.logprob)}, {"top", std::move(top)}});
  }
  return out;
}

}  // namespace

Json to_json(const Result& result) {
  Json used = Json::array();
  for (const ExpertUsed& expert : result.experts_used) {
    used.push_back({{"name", expert.name}, {"version", expert.version}, {"weight", shortest(expert.weight)}});
  }
  const Usage& usage = result.usage;
  const Timings& timings = result.timings;
  Json out = {
      {"text", result.text},
      {"output", result.output},
      {"tokens", result.tokens},
      {"experts_used", std::move(used)},
      {"finish_reason", name_of(result.finish_reason)},
      {"usage",
       {{"prompt_tokens", usage.prompt_tokens},
        {"completion_tokens", usage.completion_tokens},
        {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
        {"prompt_virtual_tokens", usage.prompt_virtual_tokens},
        {"cached_tokens", usage.cached_tokens}}},
      {"timings",
       {{"queue_ms", timings.queue_ms},
        {"prefill_ms", timings.prefill_ms},
        {"first_token_ms", timings.first_token_ms},
        {"decode_ms", timings.decode_ms},
        {"total_ms", timings.total_ms},
        {"tokens_per_second", timings.tokens_per_second}}},
      {"plan", result.plan},
  };
  if (!result.trace.is_null()) out["trace"] = result.trace;
  if (!result.logprobs.empty()) out["logprobs"] = logprobs_of(result.logprobs);
  return out;
}

namespace {

void* allocate(size_t bytes) {
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

char* give_text(std::string_view text) {
  auto* out = static_cast<char*>(allocate(text.size() + 1));
  if (!text.empty()) std::memcpy(out, text.data(), text.size());
  out[text.size()] = '\0';
  return out;
}

int32_t* give_tokens(std::span<const int32_t> tokens) {
  auto* out = static_cast<int32_t*>(allocate(tokens.size_bytes() + sizeof(int32_t)));
  if (!tokens.empty()) std::memcpy(out, tokens.data(), tokens.size_bytes());
  return out;
}

}  // namespace expert::capi
