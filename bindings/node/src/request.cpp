#include "request.h"

namespace expert_node {

namespace {

float to_float(const Napi::Value& value, float unset) {
  return value.IsNumber() ? value.As<Napi::Number>().FloatValue() : unset;
}

int32_t to_int(const Napi::Value& value, int32_t unset) {
  return value.IsNumber() ? value.As<Napi::Number>().Int32Value() : unset;
}

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
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const auto entry = list.Get(i).As<Napi::Object>();
    const Napi::Value handle = entry.Get("handle");
    Use use{nullptr, optional_text(entry.Get("name")), to_float(entry.Get("weight"), 1.0F)};
    if (handle.IsExternal()) use.handle = *handle.As<Napi::External<ExpertHandle>>().Data();
    uses_.push_back(std::move(use));
  }
}

std::vector<expert_use> Uses::view() const {
  std::vector<expert_use> out;
  for (const Use& use : uses_) out.push_back({use.handle.get(), or_null(use.name), use.weight});
  return out;
}

Request::Request(const Napi::Object& given)
    : prompt_(optional_text(given.Get("prompt"))),
      messages_(optional_text(given.Get("messages"))),
      tools_(optional_text(given.Get("tools"))),
      template_variables_(optional_text(given.Get("templateVariables"))),
      schema_(optional_text(given.Get("schema"))),
      body_(optional_text(given.Get("body"))),
      caller_(optional_text(given.Get("caller"))),
      cache_salt_(optional_text(given.Get("cacheSalt"))) {
  numbers_.flags = static_cast<uint32_t>(to_int(given.Get("flags"), 0));
  numbers_.temperature = to_float(given.Get("temperature"), EXPERT_UNSET_FLOAT);
  numbers_.top_p = to_float(given.Get("topP"), EXPERT_UNSET_FLOAT);
  numbers_.min_p = to_float(given.Get("minP"), EXPERT_UNSET_FLOAT);
  numbers_.repetition_penalty = to_float(given.Get("repetitionPenalty"), EXPERT_UNSET_FLOAT);
  numbers_.presence_penalty = to_float(given.Get("presencePenalty"), EXPERT_UNSET_FLOAT);
  numbers_.frequency_penalty = to_float(given.Get("frequencyPenalty"), EXPERT_UNSET_FLOAT);
  numbers_.top_k = to_int(given.Get("topK"), EXPERT_UNSET_INT);
  numbers_.max_tokens = to_int(given.Get("maxTokens"), EXPERT_UNSET_INT);
  numbers_.logprobs = to_int(given.Get("logprobs"), 0);
  numbers_.priority = to_int(given.Get("priority"), 0);
  numbers_.seed = to_seed(given.Get("seed"));
  const Napi::Value deadline = given.Get("deadlineMs");
  if (deadline.IsNumber()) numbers_.deadline_ms = deadline.As<Napi::Number>().DoubleValue();
  const Napi::Value experts = given.Get("experts");
  if (experts.IsArray()) uses_ = Uses(experts.As<Napi::Array>());
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
