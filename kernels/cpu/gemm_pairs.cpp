// BF16 activations times BF16 weights with the instruction that multiplies pairs of them. A pair is a word, as a float is: so
// this is the product of F32 with half as many inputs and another step.
#include "kernels/cpu/gemm_rows.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

void gemm_pairs(const GemmArgs& args) {
  GemmArgs pairs = args;
  pairs.x = reinterpret_cast<const float*>(args.prepared);
  pairs.x_stride = pair_row_bytes(args.inputs) / static_cast<int64_t>(sizeof(float));
  pairs.inputs = (args.inputs + 1) / 2;
  gemm_of<PairPanel>(pairs);
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
