#include "request.h"

#include <algorithm>
#include <cmath>

namespace expert_node {

namespace {

float float_or(double given, float unset) { return std::isnan(given) ? unset : static_cast<float>(given); }

int32_t int_or(double given, int32_t unset) { return std::isnan(given) ? unset : static_cast<int32_t>(given); }

uint64_t to_seed(const Napi::Value& value) {
  bool lossless = false;
  return value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : EXPERT_UNSET_SEED;
}

void set_text(const OptionalText& text, const char*& pointer, size_t& length) {
  if (!text) return;
  pointer = text->data();
  length = text->size();
}

}  // namespace

OptionalText optional_text(const Napi::Value& value) {
  return value.IsString() ? OptionalText(value.As<Napi::String>().Utf8Value()) : OptionalText();
}

const char* or_null(const OptionalText& text) { return text ? text->c_str() : nullptr; }

Uses::Uses(const Napi::Array& list) {
  for (uint32_t i = 0; i + 1 < list.Length(); i += 2) {
    const Napi::Value expert = list.Get(i);
    Use use{nullptr, optional_text(expert), list.Get(i + 1).As<Napi::Number>().FloatValue()};
    if (!use.name) use.handle = *expert.As<Napi::External<ExpertHandle>>().Data();
    uses_.push_back(std::move(use));
  }
}

std::vector<expert_use> Uses::view() const {
  std::vector<expert_use> out;
  for (const Use& use : uses_) out.push_back({use.handle.get(), or_null(use.name), use.weight});
  return out;
}

bool Uses::any_path() const {
  return std::ranges::any_of(uses_, [](const Use& use) { return use.name && use.name->find('/') != std::string::npos; });
}

Request::Request(const double* numbers, const Napi::Value& prompt, const Napi::Value& experts, const Napi::Value& rest)
    : prompt_(optional_text(prompt)) {
  numbers_.flags = static_cast<uint32_t>(numbers[kFlags]);
  numbers_.temperature = float_or(numbers[kTemperature], EXPERT_UNSET_FLOAT);
  numbers_.top_p = float_or(numbers[kTopP], EXPERT_UNSET_FLOAT);
  numbers_.min_p = float_or(numbers[kMinP], EXPERT_UNSET_FLOAT);
  numbers_.repetition_penalty = float_or(numbers[kRepetitionPenalty], EXPERT_UNSET_FLOAT);
  numbers_.presence_penalty = float_or(numbers[kPresencePenalty], EXPERT_UNSET_FLOAT);
  numbers_.frequency_penalty = float_or(numbers[kFrequencyPenalty], EXPERT_UNSET_FLOAT);
  numbers_.top_k = int_or(numbers[kTopK], EXPERT_UNSET_INT);
  numbers_.max_tokens = int_or(numbers[kMaxTokens], EXPERT_UNSET_INT);
  numbers_.logprobs = int_or(numbers[kLogprobs], 0);
  numbers_.priority = int_or(numbers[kPriority], 0);
  if (!std::isnan(numbers[kDeadlineMs])) numbers_.deadline_ms = numbers[kDeadlineMs];
  if (experts.IsArray()) uses_ = Uses(experts.As<Napi::Array>());
  if (rest.IsObject()) read_rest(rest.As<Napi::Object>());
}

void Request::read_rest(const Napi::Object& given) {
  messages_ = optional_text(given.Get("messages"));
  tools_ = optional_text(given.Get("tools"));
  template_variables_ = optional_text(given.Get("templateVariables"));
  schema_ = optional_text(given.Get("schema"));
  body_ = optional_text(given.Get("body"));
  caller_ = optional_text(given.Get("caller"));
  cache_salt_ = optional_text(given.Get("cacheSalt"));
  numbers_.seed = to_seed(given.Get("seed"));
  const Napi::Value stop = given.Get("stop");
  for (uint32_t i = 0; stop.IsArray() && i < stop.As<Napi::Array>().Length(); ++i) {
    stop_.push_back(stop.As<Napi::Array>().Get(i).As<Napi::String>().Utf8Value());
  }
  const Napi::Value bias = given.Get("logitBias");  // [token, value, token, value, …]
  for (uint32_t i = 0; bias.IsArray() && i + 1 < bias.As<Napi::Array>().Length(); i += 2) {
    bias_tokens_.push_back(bias.As<Napi::Array>().Get(i).As<Napi::Number>().Int32Value());
    bias_values_.push_back(bias.As<Napi::Array>().Get(i + 1).As<Napi::Number>().FloatValue());
  }
}

bool Request::light() const {
  constexpr size_t kFewBytes = 2048;
  const auto size_of = [](const OptionalText& text) { return text ? text->size() : 0; };
  return !uses_.any_path() && !tools_ && !template_variables_ &&
         size_of(prompt_) + size_of(messages_) + size_of(schema_) + size_of(body_) <= kFewBytes;
}

expert_request Request::make_view(const std::vector<expert_use>& experts, const std::vector<const char*>& stop) const {
  expert_request view = numbers_;
  set_text(prompt_, view.prompt, view.prompt_length);
  set_text(schema_, view.schema, view.schema_length);
  set_text(body_, view.body, view.body_length);
  view.messages = or_null(messages_);
  view.tools = or_null(tools_);
  view.template_variables = or_null(template_variables_);
  view.caller = or_null(caller_);
  view.cache_salt = or_null(cache_salt_);
  view.experts = experts.data();
  view.expert_count = experts.size();
  view.stop = stop.data();
  view.stop_count = stop.size();
  view.logit_bias_tokens = bias_tokens_.data();
  view.logit_bias_values = bias_values_.data();
  view.logit_bias_count = bias_tokens_.size();
  return view;
}

}  // namespace expert_node
