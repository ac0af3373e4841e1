// Decoding parameters: what a request may leave unset, and where the value then comes from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "engine/request.h"
#include "models/config.h"

namespace expert {

inline constexpr int32_t kMaxLogprobs = 20;

// Every default filled in; the values of the library stand here.
struct SamplingParameters {
  float temperature = 0.7F;
  float top_p = 1.0F;
  int32_t top_k = 0;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  int32_t max_tokens = 512;
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t logprobs = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

// One place that may set parameters; `source` is what `plan` calls it.
struct ParameterLayer {
  std::string source;
  SamplingOptions options;
};

struct EffectiveParameters {
  SamplingParameters values;
  Json parameters;  // {"temperature": 0.1, "stop": [";"], "seed": 7, …}: all that were in force
  Json sources;     // {"temperature": "expert-sql", "top_p": "library", …}
};

// Throws invalid_request naming parameter, value, range and source.
void validate(const SamplingOptions& options, int32_t vocab_size, const std::string& source);

// The first layer that sets a parameter decides; stop strings of all are united, in order. logit_bias, logprobs and
// ignore_eos are the request's alone (the first layer's). Without a seed a random one is drawn. Validates every layer.
EffectiveParameters resolve_parameters(std::span<const ParameterLayer> layers, int32_t vocab_size);

// What generation_config.json says, as a layer. do_sample: false means temperature 0.
SamplingOptions layer_of(const GenerationDefaults& defaults);

}  // namespace expert
