// A request on its way from Python to the C interface.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "interop.h"

namespace expert_python {

struct Expert {
  ExpertHandle handle;
};

// (Expert, None, weight) or (None, name, weight).
using Use = std::tuple<std::shared_ptr<Expert>, OptionalText, float>;

// Owns what a C array of expert_use points to.
struct Uses {
  std::vector<Use> given;
  std::vector<expert_use> uses;

  explicit Uses(std::vector<Use> list) : given(std::move(list)) {
    for (const auto& [expert, name, weight] : given) {
      uses.push_back({expert ? expert->handle.get() : nullptr, or_null(name), weight});
    }
  }
};

// A request as Python fills it in. Its strings outlive the C struct that view() makes of it.
struct Request {
  OptionalText prompt, messages, tools, template_variables, schema, body, caller, cache_salt;
  std::optional<std::vector<Use>> experts;  // none: the router
  std::vector<std::string> stop;
  std::vector<int32_t> logit_bias_tokens;
  std::vector<float> logit_bias_values;
  bool raw = false, plain_text = false, ignore_eos = false, trace = false;
  float temperature = EXPERT_UNSET_FLOAT, top_p = EXPERT_UNSET_FLOAT, min_p = EXPERT_UNSET_FLOAT;
  float repetition_penalty = EXPERT_UNSET_FLOAT, presence_penalty = EXPERT_UNSET_FLOAT;
  float frequency_penalty = EXPERT_UNSET_FLOAT;
  int32_t top_k = EXPERT_UNSET_INT, max_tokens = EXPERT_UNSET_INT, logprobs = 0, priority = 0;
  uint64_t seed = EXPERT_UNSET_SEED;
  double deadline_ms = 0;
};

inline void set_text(const OptionalText& text, const char*& pointer, size_t& length) {
  if (!text) return;
  pointer = text->data();
  length = text->size();
}

// Calls `use` with the C struct; everything it points to lives in `request` or in this frame.
template <typename Call>
auto with_request(const Request& request, Call&& call) {
  const Uses uses(request.experts.value_or(std::vector<Use>()));
  std::vector<const char*> stop;
  for (const std::string& text : request.stop) stop.push_back(text.c_str());
  expert_request view = EXPERT_REQUEST_INIT;
  set_text(request.prompt, view.prompt, view.prompt_length);
  set_text(request.schema, view.schema, view.schema_length);
  set_text(request.body, view.body, view.body_length);
  view.messages = or_null(request.messages);
  view.tools = or_null(request.tools);
  view.template_variables = or_null(request.template_variables);
  view.experts = uses.uses.data();
  view.expert_count = uses.uses.size();
  if (request.experts && request.experts->empty()) view.flags |= EXPERT_REQUEST_BASE_ONLY;
  if (request.raw) view.flags |= EXPERT_REQUEST_RAW;
  if (request.plain_text) view.flags |= EXPERT_REQUEST_PLAIN_TEXT;
  if (request.ignore_eos) view.flags |= EXPERT_REQUEST_IGNORE_EOS;
  if (request.trace) view.flags |= EXPERT_REQUEST_TRACE;
  view.temperature = request.temperature;
  view.top_p = request.top_p;
  view.min_p = request.min_p;
  view.repetition_penalty = request.repetition_penalty;
  view.presence_penalty = request.presence_penalty;
  view.frequency_penalty = request.frequency_penalty;
  view.top_k = request.top_k;
  view.max_tokens = request.max_tokens;
  view.logprobs = request.logprobs;
  view.seed = request.seed;
  view.stop = stop.data();
  view.stop_count = stop.size();
  view.logit_bias_tokens = request.logit_bias_tokens.data();
  view.logit_bias_values = request.logit_bias_values.data();
  view.logit_bias_count = request.logit_bias_tokens.size();
  view.priority = request.priority;
  view.deadline_ms = request.deadline_ms;
  view.caller = or_null(request.caller);
  view.cache_salt = or_null(request.cache_salt);
  return call(&view);
}

// infer.cpp: the callable `(prompt, options) -> Result` of one engine, which stays alive with it.
py::object make_infer(py::object owner, expert_engine* engine);

}  // namespace expert_python
