// LoRA (arXiv 2106.09685), rsLoRA (2312.03732), LoRA-FA (2308.03303: the same files) and DoRA (2402.09353):
//   y += s B (A x), s = alpha / r or alpha / sqrt(r); DoRA scales W x + s B A x per output by m / ||W + s B A||.
#pragma once

#include "adapters/adapter.h"
#include "adapters/lowering.h"

namespace expert {

// Throws as Adapter::load.
Lowered load_lora(const Adapter::Source& source, const AdapterBase& base);

}  // namespace expert
