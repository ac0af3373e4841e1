// What a caller asks for and what it gets. Plain data; semantics of every field: docs/interfaces of the C header.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"

namespace expert {

class LoadedExpert;

// Unset fields take: the expert's manifest, then generation_config.json, then the library's defaults
// (temperature 0.7, top_p 1, top_k off, min_p 0, repetition_penalty 1, max_tokens 512).
struct SamplingOptions {
  std::optional<float> temperature;         // 0: greedy, equal maxima -> lowest id
  std::optional<float> top_p;               // (0, 1]
  std::optional<int32_t> top_k;             // 0: off; keeps ties
  std::optional<float> min_p;               // [0, 1)
  std::optional<float> repetition_penalty;  // > 0, prompt and output
  std::optional<float> presence_penalty;    // generated tokens only
  std::optional<float> frequency_penalty;   // generated tokens only
  std::optional<int32_t> max_tokens;        // >= 1
  std::optional<uint64_t> seed;             // none: random
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t logprobs = 0;  // report the chosen token and this many best ones per position; 0: off
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

struct ExpertUse {
  std::shared_ptr<const LoadedExpert> expert;  // a handle, or
  std::string name;                            // a name ("sql", "expert-sql@0.3.0") or a path to a package
  float weight = 1.0F;
};

struct Request {
  std::string prompt;           // one user message, unless `messages` is given
  Json messages;                // null, or an array of {role, content, …}
  Json tools;                   // null, or an array for the chat template
  Json template_variables;      // null, or an object: {"enable_thinking": false}
  bool raw = false;             // no template; the tokenizer's post-processor adds what it adds
  bool special_in_text = true;  // false: special tokens' strings in user text are plain text
  std::string schema;
  std::string body;
  bool auto_experts = true;  // the router chooses; ignored when `experts` is not empty or `base_only`
  bool base_only = false;    // experts = []
  std::vector<ExpertUse> experts;
  SamplingOptions sampling;
  int32_t priority = 0;
  double deadline_ms = 0;  // 0: none
  std::string caller;
  std::string cache_salt;
  bool only_if_quick = false;  // for submit(): null, and nothing has happened, where a package had to be read first
  bool trace = false;  // what happened to it, step by step, comes with the result
};

enum class FinishReason : uint8_t { stop, length, timeout, cancelled, error };
const char* name_of(FinishReason reason);

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t prompt_virtual_tokens = 0;
  int32_t cached_tokens = 0;
};

struct Timings {  // milliseconds
  double queue_ms = 0;
  double prefill_ms = 0;
  double first_token_ms = 0;  // from submit
  double decode_ms = 0;
  double total_ms = 0;
  double tokens_per_second = 0;  // decode only
};

struct TokenLogprobs {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;
};

struct ExpertUsed {
  std::string name;
  std::string version;
  float weight = 1.0F;
};

struct Result {
  std::string text;             // ends before the earliest stop string; special tokens left out
  std::string output;           // text without a leading think block and outer blank space
  std::vector<int32_t> tokens;  // generated ids, a cut stop string's included, without the end token
  std::vector<TokenLogprobs> logprobs;
  std::vector<ExpertUsed> experts_used;
  FinishReason finish_reason = FinishReason::stop;
  Usage usage;
  Timings timings;
  Json plan;   // routing decision and the effective parameters
  Json trace;  // null, or [{t_ms, event, …}] for a request that asked for it
};

}  // namespace expert
