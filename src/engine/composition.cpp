#include "engine/composition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/error.h"
#include "core/strings.h"
#include "packages/semver.h"

namespace expert {
namespace {

std::string_view bare(std::string_view name) {
  return name.starts_with("expert-") ? name.substr(std::string_view("expert-").size()) : name;
}

// One of ">=1.0.0", "<2.0.0", "1.2.3", "*".
bool satisfies(const Version& version, std::string_view condition) {
  condition = trimmed(condition);
  if (condition.empty() || condition == "*") return true;
  const size_t number = condition.find_first_not_of("<>=");
  if (number == std::string_view::npos)
    fail(ErrorCode::manifest, "version condition \"{}\" names no version", condition);
  const std::string_view op = condition.substr(0, number);
  const Version bound = Version::parse(trimmed(condition.substr(number)));
  if (op == ">=") return version >= bound;
  if (op == "<=") return version <= bound;
  if (op == ">") return version > bound;
  if (op == "<") return version < bound;
  if (op.empty() || op == "=" || op == "==") return version == bound;
  fail(ErrorCode::manifest, "version condition \"{}\" is not understood", condition);
}

const ExpertCard* find_leading(const std::vector<ExpertNeed>& experts) {
  const auto leads = [](const ExpertNeed& a, const ExpertNeed& b) {
    const float left = std::abs(a.weight);
    const float right = std::abs(b.weight);
    return left != right ? left > right : a.card->name < b.card->name;
  };
  const auto leading = std::min_element(experts.begin(), experts.end(), leads);
  return leading == experts.end() ? nullptr : leading->card.get();
}

void check_constraints(const std::vector<ExpertNeed>& experts) {
  for (const ExpertNeed& need : experts) {
    const ExpertCardPtr& expert = need.card;
    if (!expert->manifest) continue;
    const ManifestConstraints& constraints = expert->manifest->constraints;
    if (static_cast<int64_t>(experts.size()) > constraints.max_chain) {
      fail(ErrorCode::invalid_request, "{} experts; {} allows at most {} together (max_chain)", experts.size(),
           expert->name, constraints.max_chain);
    }
    const auto named_by = [&](const std::string& pattern) {
      return std::find_if(experts.begin(), experts.end(), [&](const ExpertNeed& other) {
        return other.card != expert && names_expert(pattern, other.card->name, other.card->version);
      });
    };
    for (const std::string& pattern : constraints.incompatible_with) {
      const auto other = named_by(pattern);
      if (other == experts.end()) continue;
      fail(ErrorCode::incompatible, "{} cannot be used together with {} (incompatible_with \"{}\")", expert->name,
           other->card->name, pattern);
    }
    for (const std::string& pattern : constraints.required) {
      if (named_by(pattern) != experts.end()) continue;
      fail(ErrorCode::incompatible, "{} requires {}, which is not among the experts of the request", expert->name,
           pattern);
    }
  }
}

std::optional<float> cast(const std::optional<double>& value) {
  return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
}

// Beyond 2^31 every count means the same: no bound.
std::optional<int32_t> cast(const std::optional<int64_t>& value) {
  constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();
  return value ? std::optional(static_cast<int32_t>(std::clamp(*value, -kLargest, kLargest))) : std::nullopt;
}

SamplingOptions options_of(const ManifestDecoding& decoding) {
  SamplingOptions options;
  options.temperature = cast(decoding.temperature);
  options.top_p = cast(decoding.top_p);
  options.top_k = cast(decoding.top_k);
  options.min_p = cast(decoding.min_p);
  options.repetition_penalty = cast(decoding.repetition_penalty);
  options.presence_penalty = cast(decoding.presence_penalty);
  options.frequency_penalty = cast(decoding.frequency_penalty);
  options.max_tokens = cast(decoding.max_tokens);
  options.stop = decoding.stop_sequences;
  return options;
}

}  // namespace

bool names_expert(std::string_view pattern, std::string_view name, std::string_view version) {
  const size_t end = std::min(pattern.find_first_of("@<>= "), pattern.size());
  if (bare(pattern.substr(0, end)) != bare(name)) return false;
  std::string_view conditions = pattern.substr(end);
  if (conditions.starts_with('@')) conditions.remove_prefix(1);
  const Version parsed = Version::parse(version);
  while (!conditions.empty()) {
    const size_t comma = std::min(conditions.find(','), conditions.size());
    if (!satisfies(parsed, conditions.substr(0, comma))) return false;
    conditions.remove_prefix(std::min(comma + 1, conditions.size()));
  }
  return true;
}

Composition compose(std::vector<ExpertNeed> experts, int max_experts) {
  for (const ExpertNeed& need : experts) {
    if (!std::isfinite(need.weight)) {
      fail(ErrorCode::invalid_request, "the weight of {} is {}", need.card->name, need.weight);
    }
  }
  std::erase_if(experts, [](const ExpertNeed& need) { return need.weight == 0.0F; });
  check_constraints(experts);

  Composition composition;
  std::vector<SetMember> members;
  for (const ExpertNeed& need : experts) {
    const ExpertCard& card = *need.card;
    const int64_t load_order = card.manifest ? card.manifest->constraints.load_order : 0;
    members.push_back({card.hash, need.weight, card.soft_prompt_rows > 0, load_order, card.name});
    composition.soft_prompt_rows += card.soft_prompt_rows;
  }
  if (!members.empty()) composition.hash = set_hash(std::move(members), max_experts);
  composition.leading = find_leading(experts);
  composition.experts = std::move(experts);
  return composition;
}

std::vector<ExpertUsed> Composition::used() const {
  std::vector<ExpertUsed> result;
  for (const ExpertNeed& need : experts) result.push_back({need.card->name, need.card->version, need.weight});
  return result;
}

std::vector<std::string> Composition::warnings() const {
  std::vector<std::string> result;
  for (const ExpertNeed& need : experts) {
    result.insert(result.end(), need.card->warnings.begin(), need.card->warnings.end());
  }
  return result;
}

std::vector<ParameterLayer> decoding_layers(const Composition& composition) {
  std::vector<ParameterLayer> layers;
  if (composition.leading == nullptr) return layers;
  const auto add = [&](const ExpertCard& expert, bool leading) {
    if (!expert.manifest) return;
    SamplingOptions options;
    if (leading) {
      options = options_of(expert.manifest->decoding);
    } else {
      options.stop = expert.manifest->decoding.stop_sequences;
    }
    layers.push_back({expert.name, std::move(options)});
  };
  add(*composition.leading, true);
  for (const ExpertNeed& need : composition.experts) {
    if (need.card.get() != composition.leading) add(*need.card, false);
  }
  return layers;
}

}  // namespace expert
