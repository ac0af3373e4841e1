#include "engine/preparation.h"

#include <cmath>

#include "core/error.h"

namespace expert {
namespace {

void check_limits(const Request& request) {
  if (!std::isfinite(request.deadline_ms) || request.deadline_ms < 0) {
    fail(ErrorCode::invalid_request, "deadline_ms is {}, must be 0 (none) or more", request.deadline_ms);
  }
  if (request.base_only && !request.experts.empty()) {
    fail(ErrorCode::invalid_request, "the request names experts and asks for the base alone");
  }
  for (const ExpertUse& use : request.experts) {
    if (std::isfinite(use.weight)) continue;
    fail(ErrorCode::invalid_request, "the weight of expert {} is {}, must be finite",
         use.expert ? use.expert->name() : use.name, use.weight);
  }
}

Json describe(const RoutedExpert& routed) {
  return {{"name", routed.name},
          {"version", routed.version},
          {"weight", routed.weight},
          {"score", routed.score},
          {"reason", routed.reason}};
}

ExpertRegistry::Reading reading_of(const Request& request) {
  return request.only_if_quick ? ExpertRegistry::Reading::refused : ExpertRegistry::Reading::allowed;
}

double shortest(float value) { return std::stod(fmt::format("{}", value)); }

Json plan_of(const Choice& choice, const EffectiveParameters& parameters, const EncodedPrompt& prompt) {
  Json warnings = choice.warnings;
  for (std::string& warning : choice.composition.warnings()) warnings.push_back(std::move(warning));
  return {{"experts", choice.experts},      {"parameters", parameters.parameters}, {"sources", parameters.sources},
          {"prompt_format", prompt.format}, {"confidence", choice.confidence},     {"explanation", choice.explanation},
          {"warnings", std::move(warnings)}};
}

// "12 tokens", "12 tokens after 20 rows of soft prompts".
std::string text_of(std::span<const int32_t> ids, const Composition& composition) {
  const int64_t rows = composition.soft_prompt_rows;
  return rows == 0 ? fmt::format("{} tokens", ids.size())
                   : fmt::format("{} tokens after {} rows of soft prompts", ids.size(), rows);
}

}  // namespace

int64_t Preparation::positions_of(std::span<const int32_t> ids, const Composition& composition) {
  return static_cast<int64_t>(ids.size()) + composition.soft_prompt_rows;
}

Preparation::Preparation(Parts parts) : parts_(std::move(parts)), prompts_(parts_.tokenizer, parts_.chat_template) {}

void Preparation::check_tokens(std::span<const int32_t> ids, const Composition& composition) const {
  if (ids.empty()) fail(ErrorCode::invalid_request, "there are no tokens");
  const int32_t vocab = parts_.model->config().vocab_size;
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab) continue;
    fail(ErrorCode::invalid_request, "token {} is outside the model's vocabulary of {}", id, vocab);
  }
  const int64_t count = positions_of(ids, composition);
  if (count > parts_.model->context_size()) {
    fail(ErrorCode::invalid_request, "the prompt has {}, the context holds {}", text_of(ids, composition),
         parts_.model->context_size());
  }
  if (count > parts_.kv_positions) {
    throw Error(ErrorCode::out_of_memory,
                fmt::format("the prompt has {}, the KV cache has room for {}", text_of(ids, composition),
                            parts_.kv_positions),
                "free memory, or raise memory_limit");
  }
}

PreparedRequest Preparation::prepare(const Request& request) const {
  check_limits(request);
  validate(request.sampling, parts_.model->config().vocab_size, "request");
  const Clock::time_point asked = Clock::now();
  Choice choice = choose(request);
  if (!choice.by_router) return prepare(request, std::move(choice), asked);
  try {
    return prepare(request, choice, asked);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::out_of_memory || choice.composition.base_alone()) throw;
    return prepare_base_alone(request, error);
  }
}

PreparedRequest Preparation::prepare_base_alone(const Request& request, const Error& why) const {
  Choice choice;
  choice.explanation = "the base model alone, for want of the experts that the router chose";
  choice.warnings.push_back(fmt::format("the base answers alone: {}", why.what()));
  return prepare(request, std::move(choice), Clock::now());
}

PreparedRequest Preparation::prepare(const Request& request, Choice choice, Clock::time_point asked) const {
  EffectiveParameters parameters = parameters_for(request, choice.composition);
  EncodedPrompt prompt = prompts_.encode(request, prompt_options(choice.composition));
  check_tokens(prompt.ids, choice.composition);

  PreparedRequest prepared;
  prepared.context_size = std::min(parts_.model->context_size(), parts_.kv_positions);
  if (positions_of(prompt.ids, choice.composition) >= prepared.context_size) {
    fail(ErrorCode::invalid_request, "the prompt has {}, the context holds {}: no room for an answer",
         text_of(prompt.ids, choice.composition), prepared.context_size);
  }
  prepared.plan = plan_of(choice, parameters, prompt);
  prepared.prompt = std::move(prompt.ids);
  prepared.inside_think = prompt.inside_think;
  prepared.sampling = std::move(parameters.values);
  prepared.eos_token_ids = parts_.model->config().eos_token_ids;
  prepared.experts_used = choice.composition.used();
  prepared.set_hash = choice.composition.hash;
  prepared.chosen_by_router = choice.by_router;
  prepared.deadline_ms = request.deadline_ms;
  prepared.priority = request.priority;
  prepared.caller = request.caller;
  // Last, when nothing can be refused any more: from here on they are wanted.
  prepared.experts = parts_.registry->claim(std::move(choice.composition.experts), asked);
  return prepared;
}

Json Preparation::route(const Request& request) const {
  check_limits(request);
  validate(request.sampling, parts_.model->config().vocab_size, "request");
  if (request.base_only || !request.experts.empty() || !request.auto_experts) {
    const Choice choice = choose(request);
    const EffectiveParameters parameters = parameters_for(request, choice.composition);
    return {{"experts", choice.experts},
            {"parameters", parameters.parameters},
            {"confidence", choice.confidence},
            {"explanation", choice.explanation}};
  }
  const RoutePlan plan = ask_router(request);
  Json experts = Json::array();
  for (const RoutedExpert& routed : plan.experts) experts.push_back(describe(routed));
  Json considered = Json::array();
  for (const RoutedExpert& routed : plan.considered) considered.push_back(describe(routed));
  return {{"experts", std::move(experts)},
          {"parameters", plan.parameters},
          {"confidence", plan.confidence},
          {"explanation", plan.explanation},
          {"considered", std::move(considered)}};
}

Composition Preparation::compose_uses(std::span<const ExpertUse> uses, ExpertRegistry::Reading reading) const {
  std::vector<ExpertNeed> experts;
  for (const ExpertUse& use : uses) {
    if (!std::isfinite(use.weight)) {
      fail(ErrorCode::invalid_request, "the weight of expert {} is {}, must be finite",
           use.expert ? use.expert->name() : use.name, use.weight);
    }
    experts.push_back(parts_.registry->resolve(use, reading));
  }
  return compose(std::move(experts), parts_.max_experts);
}

Choice Preparation::choose(const Request& request) const {
  if (!request.base_only && request.experts.empty() && request.auto_experts) return choose_automatically(request);
  Choice choice;
  choice.explanation = "the base model alone, as the request says";
  if (request.base_only || request.experts.empty()) return choice;
  choice.composition = compose_uses(request.experts, reading_of(request));
  choice.explanation = "the experts that the request names";
  for (const ExpertNeed& need : choice.composition.experts) {
    choice.experts.push_back({{"name", need.card->name},
                              {"version", need.card->version},
                              {"weight", shortest(need.weight)},
                              {"score", 1.0},
                              {"reason", "named by the request"}});
  }
  return choice;
}

RoutePlan Preparation::ask_router(const Request& request) const {
  RouteOptions options;
  options.schema = request.schema;
  const ExpertRegistry::Candidates candidates = parts_.registry->candidates(reading_of(request));
  return expert::route(PromptBuilder::routing_text(request), *candidates, options);
}

// An expert that was chosen for the caller must not fail the caller: what cannot be used is left out, with a warning.
Choice Preparation::choose_automatically(const Request& request) const {
  const RoutePlan plan = ask_router(request);
  Choice choice;
  choice.by_router = true;
  choice.confidence = plan.confidence;
  choice.explanation = plan.explanation;
  std::vector<ExpertNeed> experts;
  for (const RoutedExpert& routed : plan.experts) {
    try {
      ExpertUse use;
      use.name = routed.name;
      use.weight = static_cast<float>(routed.weight);
      experts.push_back(parts_.registry->resolve(use, reading_of(request)));
      choice.experts.push_back(describe(routed));
    } catch (const Error& error) {
      choice.warnings.push_back(fmt::format("{} was left out: {}", routed.name, error.what()));
    }
  }
  try {
    choice.composition = compose(std::move(experts), parts_.max_experts);
  } catch (const Error& error) {
    choice.experts = Json::array();
    choice.warnings.push_back(fmt::format("the base answers alone: {}", error.what()));
  }
  return choice;
}

EffectiveParameters Preparation::parameters_for(const Request& request, const Composition& composition) const {
  std::vector<ParameterLayer> layers;
  layers.push_back({"request", request.sampling});
  for (ParameterLayer& layer : decoding_layers(composition)) layers.push_back(std::move(layer));
  layers.push_back({"generation_config.json", parts_.generation_config});
  return resolve_parameters(layers, parts_.model->config().vocab_size);
}

PromptOptions Preparation::prompt_options(const Composition& composition) const {
  PromptOptions options;
  if (composition.leading == nullptr) return options;
  const ExpertCard& leading = *composition.leading;
  options.format = prompt_format(leading.prompt_template, parts_.model->config().model_type, leading.name);
  if (leading.manifest) options.dialect = leading.manifest->dialect();
  return options;
}

}  // namespace expert
