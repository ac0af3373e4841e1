// Everything a request needs before it runs, done on its caller's thread: checks, experts, parameters, tokens.
#pragma once

#include <memory>

#include "engine/composition.h"
#include "engine/expert_registry.h"
#include "engine/generation_task.h"
#include "engine/prompt.h"
#include "models/model.h"

namespace expert {

// Which experts answer, and why.
struct Choice {
  Composition composition;
  Json experts = Json::array();  // [{name, version, weight, score, reason}]
  bool by_router = false;
  double confidence = 1.0;
  std::string explanation;
  std::vector<std::string> warnings;
};

class Preparation {
 public:
  struct Parts {
    std::shared_ptr<const Model> model;
    std::shared_ptr<const Tokenizer> tokenizer;
    std::shared_ptr<const ChatTemplate> chat_template;  // may be null
    std::shared_ptr<ExpertRegistry> registry;
    SamplingOptions generation_config;
    int64_t kv_positions = 0;
    int max_experts = kDefaultMaxExperts;
    std::shared_ptr<Counters> counters;
  };
  explicit Preparation(Parts parts);

  // Throws invalid_request and what choosing and loading experts throws. Where the router chooses and its choice cannot
  // be had, the base answers. ExpertRegistry::MustRead where the request is only wanted if quick and is not.
  PreparedRequest prepare(const Request& request) const;
  // For the base, because the experts that the router chose could not be had.
  PreparedRequest prepare_base_alone(const Request& request, const Error& why) const;
  // {experts: [{name, weight, score, reason}], parameters, confidence, explanation}; loads nothing that is not named.
  Json route(const Request& request) const;
  Composition compose_uses(std::span<const ExpertUse> uses,
                           ExpertRegistry::Reading reading = ExpertRegistry::Reading::allowed) const;
  // Throws invalid_request for ids outside the vocabulary or more than the context; out_of_memory beyond the KV cache.
  void check_tokens(std::span<const int32_t> ids, const Composition& composition) const;

  const PromptBuilder& prompts() const noexcept { return prompts_; }

 private:
  static int64_t positions_of(std::span<const int32_t> ids, const Composition& composition);
  PreparedRequest prepare(const Request& request, Choice choice, Clock::time_point asked) const;
  Choice choose(const Request& request) const;
  Choice choose_automatically(const Request& request) const;
  RoutePlan ask_router(const Request& request) const;
  EffectiveParameters parameters_for(const Request& request, const Composition& composition) const;
  PromptOptions prompt_options(const Composition& composition) const;

  Parts parts_;
  PromptBuilder prompts_;
};

}  // namespace expert
