// The functions of one instruction set.
#include "kernels/cpu/isa.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace floats = EXPERT_ISA_FLOATS;
namespace integers = EXPERT_ISA_INTEGERS;

namespace {

void gemm(Storage storage, const GemmArgs& args) {
  if (is_quantised(storage)) return integers::gemm_quantised(storage, args);
#if defined(EXPERT_TILE_UNIT)
  if (storage == Storage::bf16) return gemm_tiles(args);
#elif defined(__AVX512BF16__)
  if (storage == Storage::bf16) return gemm_pairs(args);
  if (storage == Storage::narrow_bf16) return gemm_narrow(args);
#elif defined(EXPERT_NARROW)
  if (storage == Storage::narrow_bf16) return floats::gemm_narrow(args);
#endif
  floats::gemm_floats(storage, args);
}

int64_t prepared_row_bytes(Storage storage, int64_t inputs) {
  if (storage == Storage::f32) return 0;
  if (is_quantised(storage)) return quantised_row_bytes(inputs);
#if defined(__AVX512BF16__)
  return pair_row_bytes(inputs);
#else
  return floats::rounded_row_bytes(inputs);
#endif
}

void prepare_row(Storage storage, const float* x, int64_t inputs, InputRange part, unsigned char* out) {
  if (is_quantised(storage)) return integers::quantise_row(storage, x, inputs, part, out);
#if defined(__AVX512BF16__)
  pair_row(x, part, out);
#else
  floats::round_row(x, part, out);
#endif
}

void attend(const AttendArgs& args) {
  if (args.format == KvFormat::int8) return integers::attend_codes(args);
  floats::attend_floats(args);
}

// The tile unit reads weights from memory, where they would have to be widened first.
#if defined(EXPERT_NARROW) && !defined(EXPERT_TILE_UNIT)
constexpr bool kNarrow = true;
#else
constexpr bool kNarrow = false;
#endif
#if defined(EXPERT_NARROW)
constexpr auto kNarrowLines = floats::narrow_lines;
#else
constexpr bool (*kNarrowLines)(const unsigned char*, int64_t, bool, int64_t, unsigned char*) = nullptr;
#endif

}  // namespace

const CpuKernels table = {
#define EXPERT_NAME_OF(isa) EXPERT_QUOTED(isa)
#define EXPERT_QUOTED(isa) #isa
    EXPERT_NAME_OF(EXPERT_ISA_NAMESPACE),
    kNarrow,
    gemm,
    integers::gemm_screen,
    integers::refine,
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
    kNarrowLines,
};

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
