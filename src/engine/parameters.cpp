#include "engine/parameters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "core/error.h"

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

// Text is held back, compared and cut at whole characters only.
bool is_utf8(const std::string& text) {
  size_t i = 0;
  const auto at = [&](size_t index) { return static_cast<unsigned char>(text[index]); };
  while (i < text.size()) {
    const unsigned lead = at(i);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : (lead & 0xF0) == 0xE0       ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xC0) != 0x80) return false;
    }
    if (length == 3 && ((lead == 0xE0 && at(i + 1) < 0xA0) || (lead == 0xED && at(i + 1) >= 0xA0))) return false;
    if (length == 4 && ((lead == 0xF0 && at(i + 1) < 0x90) || (lead == 0xF4 && at(i + 1) >= 0x90))) return false;
    i += length;
  }
  return true;
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
    if (!is_utf8(stop)) fail(ErrorCode::invalid_request, "stop holds a string that is not UTF-8 (set by {})", source);
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

template <typename T>
void read(const Json& config, const char* key, std::optional<T>& value) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return;
  if (!found->is_number()) fail(ErrorCode::load, "generation_config.json: \"{}\" must be a number", key);
  const double number = found->template get<double>();
  if (!(std::abs(number) < static_cast<double>(std::numeric_limits<T>::max()))) {
    fail(ErrorCode::load, "generation_config.json: \"{}\" is {}, out of range", key, number);
  }
  value = static_cast<T>(number);
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

SamplingOptions generation_config_options(const Json& config) {
  SamplingOptions options;
  if (!config.is_object()) return options;
  read(config, "temperature", options.temperature);
  read(config, "top_p", options.top_p);
  read(config, "top_k", options.top_k);
  read(config, "min_p", options.min_p);
  read(config, "repetition_penalty", options.repetition_penalty);
  read(config, "max_new_tokens", options.max_tokens);
  const auto do_sample = config.find("do_sample");
  if (do_sample != config.end() && do_sample->is_boolean() && !do_sample->get<bool>()) options.temperature = 0.0F;
  return options;
}

}  // namespace expert
