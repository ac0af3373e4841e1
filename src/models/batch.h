// One step of the engine, flattened. Plain data: the model below never learns what a request is.
#pragma once

#include <memory>
#include <vector>

#include "adapters/adapter_set.h"
#include "backend/backend.h"

namespace expert {

// Rows whose embeddings are given instead of looked up (soft prompts); their token ids only hold the place.
struct GivenRows {
  int32_t first_row = 0;
  Tensor embeddings;  // f32 [rows, hidden_size]
};

struct Batch {
  BatchLayout layout;
  std::vector<const AdapterSet*> adapters;  // one per segment of the layout; null: the base alone
  std::vector<int32_t> logit_rows;          // rows whose logits (or hidden states) are wanted, ascending
  // How many of the largest logits are wanted of each of them; 0: every one. Empty: every one of all.
  std::vector<int32_t> best_logits;
  std::vector<GivenRows> given_rows;
};

}  // namespace expert
