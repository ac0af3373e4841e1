// Prompt tuning (arXiv 2104.08691) and p-tuning (2103.10385) as PEFT saves them: rows in the place of embeddings, before
// the prompt. P-tuning's encoder has done its work when the adapter is saved.
#pragma once

#include "adapters/adapter.h"
#include "adapters/lowering.h"

namespace expert {

// Throws as Adapter::load.
Lowered load_soft_prompt(const Adapter::Source& source, const AdapterBase& base);

}  // namespace expert
