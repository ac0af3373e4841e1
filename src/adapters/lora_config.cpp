#include "adapters/lora_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "adapters/lowering.h"
#include "core/error.h"
#include "core/strings.h"
#include "io/json.h"

namespace expert {
namespace {

constexpr int64_t kLargestRank = 1 << 20;
constexpr size_t kMostExpressions = 64;  // patterns that are more than a name; PEFT's own tools write names

// Keys that say how an adapter was made, not what it does to a forward pass. fan_in_fan_out: PEFT itself sets it to
// false for linear layers, and our bases have no others.
constexpr std::array<std::string_view, 11> kLoraWithoutEffect = {
    "lora_dropout",   "megatron_config",   "megatron_core",  "loftq_config",  "eva_config",    "corda_config",
    "lora_ga_config", "qalora_group_size", "runtime_config", "velora_config", "fan_in_fan_out",
};

constexpr std::array<std::string_view, 17> kLoraRead = {
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "bias",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_pattern",
    "layers_to_transform",
    "init_lora_weights",
    "modules_to_save",
    "trainable_token_indices",
    "ensure_weight_tying",
    "layer_replication",
};

// Some initialisations also change the base weights, so that A and B alone are not what was trained.
void refuse_altered_base(const JsonFields& fields) {
  const Json* init = fields.find("init_lora_weights");
  if (!init || init->is_boolean()) return;
  const std::string name = lower_ascii(fields.string("init_lora_weights"));  // PEFT compares without regard to case
  if (name == "gaussian" || name == "eva" || name == "orthogonal") return;
  if (name == "mica") {  // trains A only, over B from the base's least singular vectors; computes what LoRA computes
    if (!fields.boolean_or("use_dora", false)) return;
    fail(ErrorCode::load, "{}: init_lora_weights \"mica\" cannot go with \"use_dora\"", fields.source());
  }
  const bool alters =
      name.starts_with("pissa") || name == "olora" || name == "corda" || name == "loftq" || name == "lora_ga";
  throw Error(ErrorCode::load,
              fmt::format("{}: init_lora_weights \"{}\" {}", fields.source(), name,
                          alters ? "alters the base weights, which is not supported" : "is not supported"),
              "Save the adapter again as a plain LoRA (path_initial_model_for_weight_conversion in PEFT).");
}

int64_t checked_rank(const JsonFields& fields, std::string_view key, int64_t rank) {
  if (rank < 1 || rank > kLargestRank)
    fail(ErrorCode::load, "{}: \"{}\" is {}, out of range", fields.source(), key, rank);
  return rank;
}

void refuse_many_expressions(const JsonFields& object) {
  size_t expressions = 0;
  for (const auto& [key, value] : object.json().items()) {
    const bool plain =
        key.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == std::string::npos;
    if (!plain && ++expressions > kMostExpressions) {
      fail(ErrorCode::load, "{}: more than {} regular expressions", object.source(), kMostExpressions);
    }
  }
}

ChangedBiases changed_biases(const JsonFields& fields) {
  const std::string bias = fields.string_or("bias", "none");
  if (bias == "none") return ChangedBiases::none;
  if (bias == "lora_only") return ChangedBiases::of_targets;
  if (bias == "all") return ChangedBiases::all;
  fail(ErrorCode::load, "{}: \"bias\": \"{}\" is not supported", fields.source(), bias.substr(0, 80));
}

std::vector<int64_t> integers(const JsonFields& fields, const Json& list, std::string_view what) {
  std::vector<int64_t> values;
  for (const Json& value : list) {
    if (!value.is_number_integer()) fail(ErrorCode::load, "{}: \"{}\" must hold integers", fields.source(), what);
    values.push_back(value.get<int64_t>());
  }
  return values;
}

}  // namespace

LoraConfig LoraConfig::parse(const Json& config, const std::string& origin) {
  const JsonFields fields(config, origin);
  refuse_unknown_keys(fields, kLoraRead, kLoraWithoutEffect);
  if (const Json* layers = fields.find("layer_replication"); layers != nullptr && !is_off(*layers)) {
    fail(ErrorCode::load, "{}: \"layer_replication\" is not supported: it changes the base's layers", origin);
  }
  refuse_altered_base(fields);
  LoraConfig lora;
  lora.rank_ = checked_rank(fields, "r", fields.integer("r"));
  lora.alpha_ = fields.number("lora_alpha");
  lora.rslora_ = fields.boolean_or("use_rslora", false);
  lora.dora_ = fields.boolean_or("use_dora", false);
  lora.lora_bias_ = fields.boolean_or("lora_bias", false);
  lora.ensure_weight_tying_ = fields.boolean_or("ensure_weight_tying", false);
  lora.biases_ = changed_biases(fields);
  if (lora.dora_ && lora.lora_bias_) fail(ErrorCode::load, "{}: \"lora_bias\" cannot go with \"use_dora\"", origin);
  lora.modules_ = TargetModules::parse(fields);
  lora.read_patterns(fields);
  lora.read_token_indices(fields);
  return lora;
}

void LoraConfig::read_patterns(const JsonFields& fields) {
  if (fields.has("rank_pattern")) {
    const JsonFields ranks = fields.object("rank_pattern");
    refuse_many_expressions(ranks);
    for (const auto& [key, value] : ranks.json().items()) {
      ranks_.emplace_back(SuffixPattern(key, ranks.source()), checked_rank(ranks, key, ranks.integer(key)));
    }
  }
  if (fields.has("alpha_pattern")) {
    const JsonFields alphas = fields.object("alpha_pattern");
    refuse_many_expressions(alphas);
    for (const auto& [key, value] : alphas.json().items()) {
      alphas_.emplace_back(SuffixPattern(key, alphas.source()), alphas.number(key));
    }
  }
}

void LoraConfig::read_token_indices(const JsonFields& fields) {
  const Json* indices = fields.find("trainable_token_indices");
  if (indices == nullptr || is_off(*indices)) return;
  if (indices->is_array()) {
    token_indices_[""] = integers(fields, *indices, "trainable_token_indices");
    return;
  }
  for (const auto& [name, list] : fields.object("trainable_token_indices").json().items()) {
    token_indices_[name] = integers(fields, list, "trainable_token_indices");
  }
}

int64_t LoraConfig::rank_of(std::string_view name) const {
  const auto found =
      std::find_if(ranks_.begin(), ranks_.end(), [&](const auto& rule) { return rule.first.matches(name); });
  return found == ranks_.end() ? rank_ : found->second;
}

double LoraConfig::scale_of(std::string_view name) const {
  const auto found =
      std::find_if(alphas_.begin(), alphas_.end(), [&](const auto& rule) { return rule.first.matches(name); });
  const double alpha = found == alphas_.end() ? alpha_ : found->second;
  const auto rank = static_cast<double>(rank_of(name));
  return alpha / (rslora_ ? std::sqrt(rank) : rank);
}

}  // namespace expert
