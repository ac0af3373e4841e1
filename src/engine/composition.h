// The experts of one request, checked against each other and composed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "adapters/adapter_set.h"
#include "engine/expert_registry.h"
#include "engine/parameters.h"
#include "packages/manifest.h"

namespace expert {

struct WeightedExpert {
  ExpertPtr expert;
  float weight = 1.0F;
};

struct Composition {
  std::vector<WeightedExpert> experts;         // in the caller's order, those at weight 0 left out
  std::shared_ptr<const AdapterSet> adapters;  // null: the base alone
  const Tensor& soft_prompt() const;           // rows before the prompt; empty: none
  const ExpertData* leading = nullptr;         // largest |weight|, then the first by name; null: none

  std::vector<ExpertUsed> used() const;
  std::vector<std::string> warnings() const;
  std::vector<std::shared_ptr<const void>> pins() const;
};

// Throws invalid_request (a weight that is not finite, the same expert twice, more than `max_experts` or a manifest's
// max_chain) and incompatible (incompatible_with, requires). `sets`: where sets are looked for and kept; null: nowhere.
Composition compose(std::vector<WeightedExpert> experts, int site_count, int max_experts = kDefaultMaxExperts,
                    AdapterSetCache* sets = nullptr);

// "name", "name@1.2.3", "name@>=1.0.0,<2.0.0", "name<=0.9.0", "name@*"; the prefix "expert-" may be left out.
bool names_expert(std::string_view pattern, std::string_view name, std::string_view version);

// The experts' decoding defaults as parameter layers: the leading expert's first, then the stop strings of the others.
std::vector<ParameterLayer> decoding_layers(const Composition& composition);

}  // namespace expert
