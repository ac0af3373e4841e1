#include "adapters/lora_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "io/json.h"

namespace expert {
namespace {

constexpr int64_t kLargestRank = 1 << 20;
constexpr size_t kMostExpressions = 64;  // patterns that are more than a name; PEFT's own tools write names

// Keys that say how an adapter was made, not what it does to a forward pass.
constexpr std::array kWithoutEffect = {
    "peft_type",    "auto_mapping",   "base_model_name_or_path", "revision",       "inference_mode", "task_type",
    "peft_version", "lora_dropout",   "megatron_config",         "megatron_core",  "loftq_config",   "eva_config",
    "corda_config", "lora_ga_config", "qalora_group_size",       "runtime_config", "velora_config",
};

// Keys parse() reads.
constexpr std::array kRead = {
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_pattern",
    "layers_to_transform",
    "init_lora_weights",
    "bias",
};

template <size_t n>
bool among(const std::array<const char*, n>& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

// What PEFT writes for an option that is off.
bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

[[noreturn]] void refuse(const std::string& origin, std::string_view what) {
  fail(ErrorCode::load, "{}: {} is not supported yet", origin, what);
}

void refuse_options(const JsonFields& fields) {
  for (const auto& [key, value] : fields.json().items()) {
    if (among(kWithoutEffect, key) || among(kRead, key) || is_off(value)) continue;
    if (key == "use_dora") refuse(fields.source(), "DoRA (use_dora)");
    refuse(fields.source(),
           fmt::format("\"{}\": {}", key, value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80)));
  }
  if (const std::string bias = fields.string_or("bias", "none"); bias != "none") {
    refuse(fields.source(), fmt::format("\"bias\": \"{}\"", bias));
  }
}

// Some initialisations also change the base weights, so that A and B alone are not what was trained.
void refuse_altered_base(const JsonFields& fields) {
  const Json* init = fields.find("init_lora_weights");
  if (!init || init->is_boolean()) return;
  const std::string name = fields.string("init_lora_weights");
  if (name == "gaussian" || name == "eva" || name == "orthogonal") return;
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

// A string or a list of strings.
std::vector<std::string> names_of(const JsonFields& fields, std::string_view key) {
  const Json* value = fields.find(key);
  if (!value) return {};
  if (value->is_string()) return {fields.string(key)};
  return fields.strings(key);
}

// "model.layers.17.mlp.up_proj" → 17: the first numbered segment after another one.
std::optional<int64_t> layer_index(std::string_view name) {
  size_t start = name.find('.');
  while (start != std::string_view::npos) {
    const size_t end = name.find('.', start + 1);
    if (end == std::string_view::npos) break;
    const std::string_view segment = name.substr(start + 1, end - start - 1);
    int64_t index = 0;
    const auto [stop, error] = std::from_chars(segment.data(), segment.data() + segment.size(), index);
    if (error == std::errc() && stop == segment.data() + segment.size() && index >= 0) return index;
    start = end;
  }
  return std::nullopt;
}

bool has_suffix(std::string_view name, std::string_view suffix) {
  if (name == suffix) return true;
  return name.size() > suffix.size() && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.';
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

}  // namespace

LoraConfig LoraConfig::parse(const Json& config, const std::string& origin) {
  const JsonFields fields(config, origin);
  refuse_options(fields);
  refuse_altered_base(fields);
  LoraConfig lora;
  lora.rank_ = checked_rank(fields, "r", fields.integer_or("r", lora.rank_));
  lora.alpha_ = fields.number_or("lora_alpha", lora.alpha_);
  lora.rslora_ = fields.boolean_or("use_rslora", false);
  lora.read_targets(fields);
  lora.read_layers(fields);
  lora.read_patterns(fields);
  return lora;
}

void LoraConfig::read_targets(const JsonFields& fields) {
  const auto read = [&](std::string_view key, Modules& modules) {
    const Json* value = fields.find(key);
    if (!value) return;
    if (value->is_string()) {
      modules.pattern.emplace_back(fields.string(key), fmt::format("{}: {}", fields.source(), key));
    } else {
      modules.names = fields.strings(key);
    }
  };
  const Json& targets = fields.require("target_modules");
  all_linear_ = targets.is_string() && fields.string("target_modules") == "all-linear";
  if (!all_linear_) read("target_modules", targets_);
  if (!all_linear_ && targets_.pattern.empty() && targets_.names.empty()) {
    fail(ErrorCode::load, "{}: \"target_modules\" is empty", fields.source());
  }
  read("exclude_modules", excluded_);
}

void LoraConfig::read_layers(const JsonFields& fields) {
  const Json* layers = fields.find("layers_to_transform");
  if (!layers || is_off(*layers)) return;
  if (fields.json().at("target_modules").is_string()) {
    fail(ErrorCode::load, "{}: \"layers_to_transform\" cannot go with a target_modules pattern", fields.source());
  }
  for (const std::string& pattern : names_of(fields, "layers_pattern")) {
    if (pattern != "layers" && !pattern.empty())
      refuse(fields.source(), fmt::format("\"layers_pattern\": \"{}\"", pattern));
  }
  const Json list = layers->is_array() ? *layers : Json::array({*layers});
  layers_.emplace();
  for (const Json& index : list) {
    if (!index.is_number_integer()) {
      fail(ErrorCode::load, "{}: \"layers_to_transform\" must hold layer numbers", fields.source());
    }
    layers_->push_back(index.get<int64_t>());
  }
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

bool LoraConfig::Modules::contain(std::string_view name) const {
  if (!pattern.empty()) return pattern.front().matches(name);
  return std::any_of(names.begin(), names.end(), [&](const std::string& suffix) { return has_suffix(name, suffix); });
}

bool LoraConfig::in_layers(std::string_view name) const {
  if (!layers_) return true;
  // A module named in full is meant, whatever its layer.
  if (std::find(targets_.names.begin(), targets_.names.end(), name) != targets_.names.end()) return true;
  const std::optional<int64_t> index = layer_index(name);
  return index && std::find(layers_->begin(), layers_->end(), *index) != layers_->end();
}

bool LoraConfig::targets(std::string_view name) const {
  if (excluded_.contain(name)) return false;
  if (all_linear_) return name != "lm_head";
  return targets_.contain(name) && in_layers(name);
}

std::vector<std::string> LoraConfig::absent_targets(const SiteTable& sites) const {
  std::vector<std::string> absent;
  for (const std::string& target : targets_.names) {
    const bool found =
        std::any_of(sites.begin(), sites.end(), [&](const LinearSite& site) { return has_suffix(site.name, target); });
    if (!found) absent.push_back(target);
  }
  return absent;
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
