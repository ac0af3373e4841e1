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
    quantise_row,
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
