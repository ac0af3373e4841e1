// IA3 (arXiv 2205.05638): a learned vector scales a module's output, or the input of modules listed as feed-forward.
#pragma once

#include "adapters/adapter.h"
#include "adapters/lowering.h"

namespace expert {

// Throws as Adapter::load.
Lowered load_ia3(const Adapter::Source& source, const AdapterBase& base);

}  // namespace expert
