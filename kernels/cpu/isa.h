// What the files compiled once per instruction set see of each other. EXPERT_ISA_NAMESPACE names the set.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

#ifndef EXPERT_ISA_NAMESPACE
#error "compile with -DEXPERT_ISA_NAMESPACE=<instruction set>"
#endif

// A set that differs from another in a few products only takes everything else from that one.
#ifndef EXPERT_ISA_FLOATS
#define EXPERT_ISA_FLOATS EXPERT_ISA_NAMESPACE
#endif
#ifndef EXPERT_ISA_INTEGERS
#define EXPERT_ISA_INTEGERS EXPERT_ISA_NAMESPACE
#endif

// Sets that look bytes up in a vector read narrow BF16.
#if defined(__AVX2__) || defined(__ARM_NEON)
#define EXPERT_NARROW 1
#endif

namespace expert::kernels::EXPERT_ISA_FLOATS {

void gemm_floats(Storage storage, const GemmArgs& args);
void gemm_narrow(const GemmArgs& args);
int64_t rounded_row_bytes(int64_t inputs);  // of activations rounded to BF16, as floats
void round_row(const float* x, InputRange part, unsigned char* out);
void shrink(Storage storage, const ShrinkArgs& args);
void expand(const ExpandArgs& args);
void pack_factor_rows(Source type, const void* source, int64_t rows, int64_t inputs, FactorScale scale, Storage storage,
                      unsigned char* to);
void pack_factor_panels(Source type, const void* source, int64_t rows, int64_t rank, FactorScale scale, Storage storage,
                        unsigned char* to);
bool narrow_lines(const unsigned char* lines, int64_t count, bool is_row, int64_t head, unsigned char* to);
void unpack_row(Storage storage, const void* panels, int64_t inputs, int64_t row, float* out);
void quantise_weights(Storage storage, const float* w, uint16_t* scales, unsigned char* codes);
void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t cols, float* out);
void swiglu(const float* gate, const float* up, int64_t count, float* out);
void add(const float* x, const float* y, int64_t count, float* out);
void multiply(const float* x, const float* y, int64_t count, float* out);
void exponential(const float* x, int64_t count, float* out);
void norm_rope(const NormRopeArgs& args);
void kv_write(KvFormat format, const float* k, const float* v, int64_t head_dim, int64_t token, unsigned char* block);
void attend_floats(const AttendArgs& args);
void merge(float* state, const float* later, int64_t states, int64_t head_dim);
void finish(const float* state, int64_t rows, int64_t group, int64_t head_dim, float* out, int64_t out_stride);

}  // namespace expert::kernels::EXPERT_ISA_FLOATS

namespace expert::kernels::EXPERT_ISA_INTEGERS {

void gemm_quantised(Storage storage, const GemmArgs& args);
void gemm_screen(const GemmArgs& args);
float refine(const FineRow& row, const unsigned char* fine, int64_t inputs, const unsigned char* x, float estimate);
void attend_codes(const AttendArgs& args);  // INT8 keys and values
void quantise_row(Storage storage, const float* x, int64_t inputs, InputRange part, unsigned char* out);

}  // namespace expert::kernels::EXPERT_ISA_INTEGERS

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

void gemm_pairs(const GemmArgs& args);  // BF16, of sets with products of pairs
void gemm_tiles(const GemmArgs& args);  // BF16, of sets with a tile unit
void gemm_narrow(const GemmArgs& args);  // narrow BF16, of sets with products of pairs; others take that of FLOATS
int64_t pair_row_bytes(int64_t inputs);  // of both: activations in BF16
void pair_row(const float* x, InputRange part, unsigned char* out);

extern const CpuKernels table;

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
