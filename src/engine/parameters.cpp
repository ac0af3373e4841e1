#include "engine/parameters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "core/error.h"
#include "core/utf8.h"

namespace expert {
namespace {

template <typename T>
void check(const std::optional<T>& value, bool valid, const char* name, const char* range, const std::string& source) {
  if (value && !valid) {
    fail(ErrorCode::invalid_request, "{} is {}, must be {} (set by {})", name, *value, range, source);
  }
}

bool between(const std::optional<float>& value, bool (*test)(float)) {
  return !value || (std::isfinite(*value) && test(*value));
}

void validate_lists(const SamplingOptions& options, int32_t vocab_size, const std::string& source) {
  for (const auto& [id, bias] : options.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      fail(ErrorCode::invalid_request, "logit_bias names token {}, the vocabulary has 0 to {} (set by {})", id,
           vocab_size - 1, source);
    }
    if (!std::isfinite(bias)) {
      fail(ErrorCode::invalid_request, "logit_bias of token {} is {}, must be finite (set by {})", id, bias, source);
    }
  }
  for (const std::string& stop : options.stop) {
    if (stop.empty()) fail(ErrorCode::invalid_request, "stop holds an empty string (set by {})", source);
    // Text is held back, compared and cut at whole characters only.
    if (!unicode::is_utf8(stop)) fail(ErrorCode::invalid_request, "stop holds a string that is not UTF-8 (set by {})", source);
  }
  if (options.logprobs < 0 || options.logprobs > kMaxLogprobs) {
    fail(ErrorCode::invalid_request, "logprobs is {}, must be 0 to {} (set by {})", options.logprobs, kMaxLogprobs,
         source);
  }
}

// Takes one parameter from the first layer that sets it and writes down where it came from.
class Resolver {
 public:
  Resolver(std::span<const ParameterLayer> layers, EffectiveParameters& result) : layers_(layers), result_(result) {}

  template <typename T>
  void take(const char* name, std::optional<T> SamplingOptions::*field, T& value) {
    std::string source = "library";
    for (const ParameterLayer& layer : layers_) {
      if (!(layer.options.*field)) continue;
      value = *(layer.options.*field);
      source = layer.source;
      break;
    }
    record(name, value, source);
  }

  template <typename T>
  void record(const char* name, const T& value, const std::string& source) {
    if constexpr (std::is_same_v<T, float>) {
      // The shortest decimal that is this float: 0.7, not 0.699999988079071.
      result_.parameters[name] = std::stod(fmt::format("{}", value));
    } else {
      result_.parameters[name] = value;
    }
    result_.sources[name] = source;
  }

 private:
  std::span<const ParameterLayer> layers_;
  EffectiveParameters& result_;
};

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

void unite_stops(std::span<const ParameterLayer> layers, EffectiveParameters& result) {
  std::vector<std::string>& stop = result.values.stop;
  Json sources = Json::array();
  for (const ParameterLayer& layer : layers) {
    for (const std::string& text : layer.options.stop) {
      if (std::find(stop.begin(), stop.end(), text) != stop.end()) continue;
      stop.push_back(text);
      sources.push_back(layer.source);
    }
  }
  result.parameters["stop"] = stop;
  result.sources["stop"] = std::move(sources);
}

}  // namespace

void validate(const SamplingOptions& options, int32_t vocab_size, const std::string& source) {
  const auto not_negative = [](float v) { return v >= 0; };
  const auto any = [](float) { return true; };
  check(options.temperature, between(options.temperature, not_negative), "temperature", "0 or more", source);
  check(options.top_p, between(options.top_p, [](float v) { return v > 0 && v <= 1; }), "top_p", "in (0, 1]", source);
  check(options.top_k, options.top_k.value_or(0) >= 0, "top_k", "0 (off) or more", source);
  check(options.min_p, between(options.min_p, [](float v) { return v >= 0 && v < 1; }), "min_p", "in [0, 1)", source);
  check(options.repetition_penalty, between(options.repetition_penalty, [](float v) { return v > 0; }),
        "repetition_penalty", "more than 0", source);
  check(options.presence_penalty, between(options.presence_penalty, any), "presence_penalty", "finite", source);
  check(options.frequency_penalty, between(options.frequency_penalty, any), "frequency_penalty", "finite", source);
  check(options.max_tokens, options.max_tokens.value_or(1) >= 1, "max_tokens", "1 or more", source);
  validate_lists(options, vocab_size, source);
}

EffectiveParameters resolve_parameters(std::span<const ParameterLayer> layers, int32_t vocab_size) {
  for (const ParameterLayer& layer : layers) validate(layer.options, vocab_size, layer.source);

  EffectiveParameters result;
  SamplingParameters& values = result.values;
  Resolver resolver(layers, result);
  resolver.take("temperature", &SamplingOptions::temperature, values.temperature);
  resolver.take("top_p", &SamplingOptions::top_p, values.top_p);
  resolver.take("top_k", &SamplingOptions::top_k, values.top_k);
  resolver.take("min_p", &SamplingOptions::min_p, values.min_p);
  resolver.take("repetition_penalty", &SamplingOptions::repetition_penalty, values.repetition_penalty);
  resolver.take("presence_penalty", &SamplingOptions::presence_penalty, values.presence_penalty);
  resolver.take("frequency_penalty", &SamplingOptions::frequency_penalty, values.frequency_penalty);
  resolver.take("max_tokens", &SamplingOptions::max_tokens, values.max_tokens);
  unite_stops(layers, result);

  const SamplingOptions request = layers.empty() ? SamplingOptions{} : layers.front().options;
  values.seed = request.seed ? *request.seed : random_seed();
  resolver.record("seed", values.seed, request.seed ? layers.front().source : "random");
  values.logit_bias = request.logit_bias;
  values.logprobs = request.logprobs;
  values.ignore_eos = request.ignore_eos;
  return result;
}

SamplingOptions layer_of(const GenerationDefaults& defaults) {
  const auto as_float = [](const std::optional<double>& value) {
    return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
  };
  SamplingOptions options;
  options.temperature = defaults.do_sample.value_or(true) ? as_float(defaults.temperature) : 0.0F;
  options.top_p = as_float(defaults.top_p);
  options.top_k = defaults.top_k;
  options.min_p = as_float(defaults.min_p);
  options.repetition_penalty = as_float(defaults.repetition_penalty);
  options.max_tokens = defaults.max_new_tokens;
  return options;
}

}  // namespace expert
