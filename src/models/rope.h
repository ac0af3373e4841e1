// Rotary positions: which angle each pair of a head turns per position.
//
// Formulas: default, RoFormer (arXiv 2104.09864); linear, position interpolation (arXiv 2306.15595); yarn
// (arXiv 2309.00071); llama3, the frequency bands of the Llama 3.1 release. Computed in F32 in the order Transformers
// uses, because at position 40,000 one rounding of a frequency is already 1e-3 radians.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "models/config.h"

namespace expert {

struct RopeFrequencies {
  std::vector<float> inverse;     // radians per position, one per pair: head_dim / 2
  float attention_factor = 1.0F;  // multiplies cos and sin
};

RopeFrequencies rope_frequencies(const RopeConfig& config, int32_t head_dim);

// cos and sin per position on the device, extended as positions are asked for: contexts are long, most prompts short.
class RopeCache {
 public:
  RopeCache(const RopeConfig& config, int32_t head_dim, int64_t context_size);
  // A table of at least `positions` positions (at most the context); valid until the next call.
  const RopeTable& covering(int64_t positions, Backend& backend);

 private:
  void extend(int64_t positions, Backend& backend);

  RopeFrequencies frequencies_;
  int64_t context_size_;
  RopeTable table_;
};

}  // namespace expert
