#include "models/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "io/json.h"
#include "models/registry.h"

namespace expert {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

int32_t in_range(const JsonFields& fields, std::string_view key, int64_t value, int64_t least = 1) {
  if (value < least || value > kLargest) {
    fail(ErrorCode::load, "{}: \"{}\" is {}, out of range", fields.source(), key, value);
  }
  return static_cast<int32_t>(value);
}

int32_t dimension(const JsonFields& fields, std::string_view key, int64_t fallback) {
  return in_range(fields, key, fields.integer_or(key, fallback));
}

double positive(const JsonFields& fields, std::string_view key, double value) {
  constexpr double kMost = 1e30;  // still a float, with room for the products RoPE forms
  if (!(value > 0 && value <= kMost)) {
    fail(ErrorCode::load, "{}: \"{}\" is {}, must be above 0 and at most {}", fields.source(), key, value, kMost);
  }
  return value;
}

bool is_empty(const Json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

// --- what would change the result and is not built ------------------------------------------------------------------

void refuse_unsupported(const JsonFields& fields) {
  const std::string activation = fields.string_or("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fail(ErrorCode::unsupported, "{}: hidden_act \"{}\" is not supported", fields.source(), activation);
  }
  if (const Json* quantization = fields.find("quantization_config"); quantization && !is_empty(*quantization)) {
    const Json* method = quantization->is_object() && quantization->contains("quant_method")
                             ? &quantization->at("quant_method")
                             : nullptr;
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: quantization_config ({}) is not supported", fields.source(),
                            method && method->is_string() ? method->get<std::string>() : "unnamed method"),
                "Use the unquantised checkpoint (F32, F16 or BF16) of this model.");
  }
  for (const char* key : {"compression_config", "per_layer_config"}) {
    if (const Json* value = fields.find(key); value && !is_empty(*value)) {
      fail(ErrorCode::unsupported, "{}: {} is not supported", fields.source(), key);
    }
  }
}

// --- shapes
// -----------------------------------------------------------------------------------------------------------

int64_t default_kv_heads(const JsonFields& fields, const Architecture& architecture, int64_t heads) {
  const bool is_null = fields.json().contains("num_key_value_heads");  // present, and integer_or falls back on null
  return is_null ? heads : architecture.kv_heads.value_or(heads);
}

int64_t default_head_dim(const JsonFields& fields, const Architecture& architecture, const ModelConfig& config) {
  if (architecture.head_dim && !fields.json().contains("head_dim")) return *architecture.head_dim;
  if (!fields.has("head_dim") && config.hidden_size % config.heads != 0) {
    fail(ErrorCode::load, "{}: hidden_size {} is not a multiple of num_attention_heads {}", fields.source(),
         config.hidden_size, config.heads);
  }
  return config.hidden_size / config.heads;
}

void read_shapes(const JsonFields& fields, const Architecture& architecture, ModelConfig& config) {
  config.vocab_size = dimension(fields, "vocab_size", architecture.vocab_size);
  config.hidden_size = dimension(fields, "hidden_size", architecture.hidden_size);
  config.intermediate_size = dimension(fields, "intermediate_size", architecture.intermediate_size);
  config.layers = dimension(fields, "num_hidden_layers", architecture.layers);
  config.heads = dimension(fields, "num_attention_heads", architecture.heads);
  config.kv_heads = dimension(fields, "num_key_value_heads", default_kv_heads(fields, architecture, config.heads));
  config.head_dim = dimension(fields, "head_dim", default_head_dim(fields, architecture, config));
  if (config.heads % config.kv_heads != 0) {
    fail(ErrorCode::load, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", fields.source(),
         config.heads, config.kv_heads);
  }
  if (config.head_dim % 2 != 0) {
    fail(ErrorCode::load, "{}: head_dim {} is odd; rotary positions need pairs", fields.source(), config.head_dim);
  }
  if (int64_t{config.heads} * config.head_dim > kLargest) {
    fail(ErrorCode::load, "{}: {} heads of {} are more than a row can hold", fields.source(), config.heads,
         config.head_dim);
  }
  const double eps = fields.number_or("rms_norm_eps", 1e-6);
  if (!(eps >= 0 && eps < 1)) fail(ErrorCode::load, "{}: rms_norm_eps is {}", fields.source(), eps);
  config.rms_norm_eps = static_cast<float>(eps);
  config.tied_head = fields.boolean_or("tie_word_embeddings", false);
}

// --- rotary positions
// -------------------------------------------------------------------------------------------------

void refuse_partial_rotation(const JsonFields& fields) {
  if (const double part = fields.number_or("partial_rotary_factor", 1.0); part != 1.0) {
    fail(ErrorCode::unsupported, "{}: partial_rotary_factor {} is not supported", fields.source(), part);
  }
}

// {"full_attention": {...}, "sliding_attention": {...}}: one rotation for each kind of layer.
void refuse_rotations_by_layer(const JsonFields& rope) {
  for (const auto& [key, value] : rope.json().items()) {
    if (!value.is_object()) continue;
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: rotations by kind of layer ({}) are not supported", rope.source(), key.substr(0, 80)),
                "Where all kinds have the same rotation, write its values once, without the names of the kinds.");
  }
}

void read_factor(const JsonFields& rope, RopeConfig& config) {
  // Written as null, YaRN's factor is the ratio of the two contexts; left out, it is missing.
  if (config.type == "yarn" && rope.json().contains("factor") && !rope.has("factor")) return;
  config.factor = positive(rope, "factor", rope.number("factor"));
}

void read_yarn(const JsonFields& rope, RopeConfig& config) {
  config.attention_factor = rope.optional_number("attention_factor");
  if (config.attention_factor) positive(rope, "attention_factor", *config.attention_factor);
  config.mscale = rope.number_or("mscale", 0);
  config.mscale_all_dim = rope.number_or("mscale_all_dim", 0);
  const auto rotations = [&](std::string_view key, double fallback) {
    const double value = rope.number_or(key, fallback);
    return positive(rope, key, value == 0 ? fallback : value);
  };
  config.beta_fast = rotations("beta_fast", 32);
  config.beta_slow = rotations("beta_slow", 1);
  config.truncate = rope.boolean_or("truncate", true);
  if (config.theta <= 1) fail(ErrorCode::load, "{}: yarn needs a rope_theta above 1", rope.source());
}

void read_llama3(const JsonFields& rope, RopeConfig& config) {
  config.low_freq_factor = positive(rope, "low_freq_factor", rope.number("low_freq_factor"));
  config.high_freq_factor = positive(rope, "high_freq_factor", rope.number("high_freq_factor"));
  if (config.high_freq_factor <= config.low_freq_factor) {
    fail(ErrorCode::load, "{}: high_freq_factor {} must be above low_freq_factor {}", rope.source(),
         config.high_freq_factor, config.low_freq_factor);
  }
}

// The object that describes the rotation: an override, else the old spelling, else the new one (as Transformers ranks
// them); null where there is none.
const Json* rope_object(const JsonFields& fields, const Json& override_with) {
  if (!override_with.is_null()) return &override_with;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* found = fields.find(key);
    if (!found || is_empty(*found)) continue;
    if (!found->is_object()) fail(ErrorCode::load, "{}: \"{}\" must be an object", fields.source(), key);
    return found;
  }
  return nullptr;
}

double base_of_rotation(const JsonFields& fields, const Json& override_with, const Json* rope) {
  double theta = fields.number_or("rope_theta", 10000.0);
  if (!override_with.is_null()) {  // an override without a base keeps the one the configuration gives
    if (const Json* own = rope_object(fields, nullptr)) {
      theta = JsonFields(*own, fields.source()).number_or("rope_theta", theta);
    }
  }
  if (rope) theta = JsonFields(*rope, fields.source()).number_or("rope_theta", theta);
  return positive(fields, "rope_theta", theta);
}

void read_rope(const JsonFields& fields, const Json& override_with, int64_t max_positions, ModelConfig& config) {
  refuse_partial_rotation(fields);
  RopeConfig& rope = config.rope;
  const Json* object = rope_object(fields, override_with);
  rope.theta = base_of_rotation(fields, override_with, object);
  if (!object) return;
  const JsonFields parameters(*object, fields.source() + ": rope_scaling");
  refuse_rotations_by_layer(parameters);
  refuse_partial_rotation(parameters);
  rope.type = parameters.string_or("rope_type", parameters.string_or("type", "default"));
  if (rope.type == "default") return;
  if (rope.type != "linear" && rope.type != "yarn" && rope.type != "llama3" && rope.type != "dynamic") {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: RoPE type \"{}\" is not supported", fields.source(), rope.type),
                "Supported RoPE types: default, linear, yarn, llama3, and dynamic within its original context.");
  }
  read_factor(parameters, rope);
  if (rope.type == "yarn" || rope.type == "llama3") {
    const int64_t own = parameters.integer_or("original_max_position_embeddings", max_positions);
    rope.original_context =
        in_range(parameters, "original_max_position_embeddings",
                 override_with.is_null() ? fields.integer_or("original_max_position_embeddings", own) : own);
  }
  if (rope.type == "yarn") {
    if (!parameters.has("factor")) {
      rope.factor = static_cast<double>(max_positions) / static_cast<double>(rope.original_context);
    }
    read_yarn(parameters, rope);
  }
  if (rope.type == "llama3") read_llama3(parameters, rope);
}

// --- context
// ----------------------------------------------------------------------------------------------------------

int64_t extended(int64_t positions, double factor) {
  return static_cast<int64_t>(std::min(static_cast<double>(positions) * factor, static_cast<double>(kLargest)));
}

void read_context(const JsonFields& fields, int64_t max_positions, bool overridden, ModelConfig& config) {
  config.context_limit = config.context_ceiling = max_positions;
  config.ceiling_reason = "max_position_embeddings of the configuration";
  RopeConfig& rope = config.rope;
  if (rope.type == "yarn" || (rope.type == "llama3" && overridden)) {
    config.context_ceiling = std::max(max_positions, extended(rope.original_context, rope.factor));
    config.ceiling_reason = rope.type + " RoPE";
  } else if (rope.type == "linear" && overridden) {
    config.context_ceiling = std::max(max_positions, extended(max_positions, rope.factor));
    config.ceiling_reason = "linear RoPE";
  } else if (rope.type == "dynamic") {
    // Equal to the default within the original context; beyond, every earlier key would have to be rotated anew.
    config.ceiling_reason = "dynamic RoPE, which is supported within its original context only";
    config.warnings.push_back(fmt::format("{}: dynamic RoPE is run within its original context of {} positions",
                                          fields.source(), max_positions));
    rope.type = "default";
    rope.factor = 1.0;
  }
  if (overridden) config.context_limit = config.context_ceiling;
  if (config.sliding_window && *config.sliding_window < config.context_ceiling) {
    config.context_ceiling = *config.sliding_window;
    config.context_limit = std::min(config.context_limit, config.context_ceiling);
    config.ceiling_reason = "the active sliding window, beyond which attention is not supported";
    config.warnings.push_back(fmt::format("{}: the context is capped at the sliding window of {} positions",
                                          fields.source(), *config.sliding_window));
  }
}

// --- tokens and generation_config.json
// --------------------------------------------------------------------------------

// Token ids of a key that holds one id or a list. An id that no vocabulary entry has can never be generated; some
// published files write -1 for "none".
std::vector<int32_t> token_ids(const JsonFields& fields, std::string_view key, ModelConfig& config) {
  std::vector<int32_t> ids;
  const Json* value = fields.find(key);
  if (!value) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& item : list) {
    if (!item.is_number_integer()) {
      fail(ErrorCode::load, "{}: \"{}\" must be a token id or a list of them", fields.source(), key);
    }
    const bool known = item.is_number_unsigned() ? item.get<uint64_t>() < static_cast<uint64_t>(config.vocab_size)
                                                 : item.get<int64_t>() >= 0 && item.get<int64_t>() < config.vocab_size;
    if (known) {
      ids.push_back(item.get<int32_t>());
    } else {
      config.warnings.push_back(fmt::format("{}: {} {} is outside the vocabulary of {}", fields.source(), key,
                                            item.dump(), config.vocab_size));
    }
  }
  return ids;
}

// Reads the model's own defaults. One that is out of range (published files write -1 for "off") is left out with a
// warning: it concerns the one sampling setting, not whether the model can be run.
class GenerationReader {
 public:
  GenerationReader(const JsonFields& fields, std::vector<std::string>& warnings)
      : fields_(fields), warnings_(warnings) {}

  GenerationDefaults read() {
    constexpr double kAny = std::numeric_limits<float>::max();
    constexpr double kAboveZero = std::numeric_limits<float>::min();
    const double below_one = std::nextafter(1.0, 0.0);
    GenerationDefaults defaults;
    defaults.do_sample = fields_.optional_boolean("do_sample");
    defaults.temperature = bounded("temperature", 0, kAny);
    defaults.top_p = bounded("top_p", kAboveZero, 1);
    defaults.min_p = bounded("min_p", 0, below_one);
    defaults.repetition_penalty = bounded("repetition_penalty", kAboveZero, kAny);
    defaults.top_k = bounded_integer("top_k", 0);
    defaults.max_new_tokens = bounded_integer("max_new_tokens", 1);
    warn_of_unused();
    return defaults;
  }

 private:
  std::optional<double> bounded(std::string_view key, double least, double most) {
    const std::optional<double> value = fields_.optional_number(key);
    if (!value || (*value >= least && *value <= most)) return value;
    ignore(key, fmt::format("{}", *value));
    return std::nullopt;
  }

  std::optional<int32_t> bounded_integer(std::string_view key, int64_t least) {
    const std::optional<int64_t> value = fields_.optional_integer(key);
    if (!value) return std::nullopt;
    if (*value >= least && *value <= kLargest) return static_cast<int32_t>(*value);
    ignore(key, fmt::format("{}", *value));
    return std::nullopt;
  }

  void ignore(std::string_view key, const std::string& value) {
    warnings_.push_back(fmt::format("{}: \"{}\" is {}, out of range, and is ignored", fields_.source(), key, value));
  }

  // Settings that change what Transformers generates and that this library does not have.
  void warn_of_unused() {
    constexpr std::array<std::string_view, 14> kUnused = {
        "suppress_tokens",      "begin_suppress_tokens", "bad_words_ids",     "no_repeat_ngram_size", "typical_p",
        "epsilon_cutoff",       "eta_cutoff",            "guidance_scale",    "forced_bos_token_id",  "forced_eos_token_id",
        "sequence_bias",        "top_h",                 "min_new_tokens",    "encoder_repetition_penalty"};
    const auto unused = [&](std::string_view key) {
      warnings_.push_back(fmt::format("{}: \"{}\" is not supported and is ignored", fields_.source(), key));
    };
    for (const std::string_view key : kUnused) {
      const Json* value = fields_.find(key);
      const bool neutral = value == nullptr || is_empty(*value) || *value == 0 || *value == 1;
      if (!neutral) unused(key);
    }
    if (const Json* beams = fields_.find("num_beams"); beams != nullptr && *beams != 1) unused("num_beams");
  }

  const JsonFields& fields_;
  std::vector<std::string>& warnings_;
};

void read_tokens(const JsonFields& fields, const JsonFields* generation, const Architecture& architecture,
                 ModelConfig& config) {
  std::vector<int32_t>& ends = config.eos_token_ids;
  ends = token_ids(fields, "eos_token_id", config);
  if (generation) {
    const std::vector<int32_t> more = token_ids(*generation, "eos_token_id", config);
    ends.insert(ends.end(), more.begin(), more.end());
  }
  // The class default counts only where neither file mentions the key.
  const bool mentioned = fields.json().contains("eos_token_id") || (generation && generation->has("eos_token_id"));
  if (!mentioned && architecture.eos_token_id && *architecture.eos_token_id < config.vocab_size) {
    ends.push_back(*architecture.eos_token_id);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());

  const std::vector<int32_t> first = token_ids(fields, "bos_token_id", config);
  if (!first.empty()) config.bos_token_id = first.front();
  if (!fields.json().contains("bos_token_id")) config.bos_token_id = architecture.bos_token_id;
}

}  // namespace

ModelConfig ModelConfig::parse(const Json& config, const Json& generation_config, const std::string& origin,
                               const Json& rope_scaling) {
  const JsonFields fields(config, origin + "/config.json");
  const Architecture& architecture = find_architecture(fields);
  refuse_unsupported(fields);

  ModelConfig model;
  model.architecture = architecture.name;
  model.model_type = architecture.model_type;
  read_shapes(fields, architecture, model);
  architecture.particulars(fields, model);
  if (model.sliding_window) in_range(fields, "sliding_window", *model.sliding_window);
  const int32_t max_positions = dimension(fields, "max_position_embeddings", architecture.max_position_embeddings);
  read_rope(fields, rope_scaling, max_positions, model);
  read_context(fields, max_positions, !rope_scaling.is_null(), model);

  if (generation_config.is_null()) {
    read_tokens(fields, nullptr, architecture, model);
    return model;
  }
  const JsonFields generation(generation_config, origin + "/generation_config.json");
  read_tokens(fields, &generation, architecture, model);
  model.generation = GenerationReader(generation, model.warnings).read();
  return model;
}

int64_t ModelConfig::context_for(int64_t requested) const {
  if (requested == 0) return context_limit;
  if (requested < 0) fail(ErrorCode::invalid_request, "context_size is {}, must not be negative", requested);
  if (requested > context_ceiling) {
    throw Error(
        ErrorCode::invalid_request,
        fmt::format("context_size {} is above the {} positions of {}", requested, context_ceiling, ceiling_reason),
        "Ask for a smaller context_size, or give rope_scaling (for example yarn with a factor) to extend it.");
  }
  return requested;
}

}  // namespace expert
