// The experts of one request, checked against each other by what their cards say.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "adapters/adapter_set.h"
#include "engine/expert_data.h"
#include "engine/parameters.h"
#include "packages/manifest.h"

namespace expert {

struct Composition {
  std::vector<ExpertNeed> experts;       // in the caller's order, those at weight 0 left out
  ContentHash hash{};                    // of the set they make
  int64_t soft_prompt_rows = 0;          // before the prompt
  const ExpertCard* leading = nullptr;   // largest |weight|, then the first by name; null: the base alone

  bool base_alone() const noexcept { return experts.empty(); }
  std::vector<ExpertUsed> used() const;
  std::vector<std::string> warnings() const;
};

// Throws invalid_request (a weight that is not finite, the same expert twice, more than `max_experts` or a manifest's
// max_chain) and incompatible (incompatible_with, requires).
Composition compose(std::vector<ExpertNeed> experts, int max_experts = kDefaultMaxExperts);

// "name", "name@1.2.3", "name@>=1.0.0,<2.0.0", "name<=0.9.0", "name@*"; the prefix "expert-" may be left out.
bool names_expert(std::string_view pattern, std::string_view name, std::string_view version);

// The experts' decoding defaults as parameter layers: the leading expert's first, then the stop strings of the others.
std::vector<ParameterLayer> decoding_layers(const Composition& composition);

}  // namespace expert
