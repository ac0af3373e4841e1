// The functions of one instruction set.
#include "kernels/cpu/isa.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace floats = EXPERT_ISA_FLOATS;

namespace {

void gemm(Storage storage, const GemmArgs& args) {
  if (is_quantised(storage)) return gemm_quantised(storage, args);
#if defined(__AMX_BF16__)
  if (storage == Storage::bf16) return gemm_tiles(args);
#endif
  floats::gemm_floats(storage, args);
}

int64_t prepared_row_bytes(Storage storage, int64_t inputs) {
  if (is_quantised(storage)) return quantised_row_bytes(inputs);
#if defined(__AMX_BF16__)
  if (storage == Storage::bf16) return split_row_bytes(inputs);
#endif
  return 0;
}

void prepare_row(Storage storage, const float* x, int64_t inputs, unsigned char* out) {
#if defined(__AMX_BF16__)
  if (storage == Storage::bf16) return split_row(x, inputs, out);
#endif
  quantise_row(storage, x, inputs, out);
}

void attend(const AttendArgs& args) {
  if (args.format == KvFormat::int8) return attend_codes(args);
  floats::attend_floats(args);
}

}  // namespace

const CpuKernels table = {
#define EXPERT_NAME_OF(isa) EXPERT_QUOTED(isa)
#define EXPERT_QUOTED(isa) #isa
    EXPERT_NAME_OF(EXPERT_ISA_NAMESPACE),
    gemm,
    prepared_row_bytes,
    prepare_row,
    floats::quantise_weights,
    floats::unpack_row,
    floats::rms_norm,
    floats::swiglu,
    floats::add,
    floats::multiply,
    floats::norm_rope,
    floats::kv_write,
    attend,
    floats::merge,
    floats::finish,
    floats::exponential,
    floats::shrink,
    floats::expand,
    floats::pack_factor_rows,
    floats::pack_factor_panels,
};

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
