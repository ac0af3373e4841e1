// LoRA (arXiv 2106.09685) and rsLoRA (arXiv 2312.03732): y += s B (A x), s = alpha / r or alpha / sqrt(r).
#pragma once

#include <string>
#include <vector>

#include "adapters/adapter.h"

namespace expert {

struct LoweredLora {
  std::string kind;               // "lora" or "rslora"
  std::vector<SiteDelta> deltas;  // ascending by site
};

// Accepts the keys PEFT writes and the older spelling of expert packages: with or without one `model.`, ending in
// `.lora_A.weight`, `.lora_A` or `.lora_A.default.weight`. Throws as Adapter::load.
LoweredLora load_lora(const Adapter::Source& source, const SiteTable& sites, Backend& backend, WeightFormat format);

}  // namespace expert
