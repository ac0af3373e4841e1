// What every expert kind lowers to (docs/architecture.md, "The one idea"): the change of one linear layer y = W x + b
//
//   y = c * ( e * (W (d*x)) + sum_i w_i D_i (d*x) + sum_i w_i B_i (A_i (d*x)) + b + db )
//
// No kernel, model or scheduler knows what a LoRA or a DoRA is; src/adapters/ writes these structs, backends read them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/matrix.h"
#include "backend/tensor.h"

namespace expert {

// w * B (A x). B carries the kind's own scale (alpha / r); `weight` is the request's and multiplies the rank-space vector.
struct LowRankTerm {
  MatrixPtr a;  // [rank, in], as Backend::pack_factors() gives it; of an embedding [in, rank], a table by pack()
  MatrixPtr b;  // [out, rank], likewise
  float weight = 1.0F;
};

// w * D x, a full matrix (modules_to_save).
struct DenseTerm {
  MatrixPtr d;  // [out, in]; of an embedding [in, out], a table
  float weight = 1.0F;
};

// One layer of one composed set. Empty tensors mean ones (scales) or zeros (bias). Terms are in content-hash order of
// their experts, so that the sum does not depend on the order the caller used.
struct LinearDelta {
  std::vector<LowRankTerm> low_rank;
  std::vector<DenseTerm> dense;
  Tensor input_scale;   // d, f32 [1, in]
  Tensor output_scale;  // e, f32 [1, out]
  Tensor bias;          // db, f32 [1, out], weights already applied
  Tensor result_scale;  // c, f32 [1, out]
  bool skip_base = false;  // e = 0 everywhere: W is not read
  // Backend::plan_terms() of low_rank; null: worked out anew at every call.
  std::shared_ptr<const void> planned_terms;
};

// `delta` applies to rows [first_row, first_row + row_count) of the batch. Never null, never overlapping.
struct SegmentDelta {
  int32_t first_row = 0;
  int32_t row_count = 0;
  const LinearDelta* delta = nullptr;
};

}  // namespace expert
