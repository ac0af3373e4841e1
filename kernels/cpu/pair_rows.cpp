// Activations in BF16, as the products of pairs and of tiles read them: whole lines of 32 inputs, zeros behind the last.
#include "kernels/cpu/simd.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

constexpr int64_t kLineInputs = 32;

}  // namespace

// An odd number of lines, or a column of a tile of rows would fall into the same few sets of the first-level cache.
int64_t pair_row_bytes(int64_t inputs) { return ((inputs + kLineInputs - 1) / kLineInputs | 1) * 64; }

void pair_row(const float* x, InputRange part, unsigned char* out) {
  claim_lines(out + part.begin * 2, (part.end - part.begin) * 2);
  for (int64_t k = part.begin; k < part.end; k += kLineInputs) {
    const int64_t left = part.end - k;
    const auto mask = static_cast<uint32_t>(left >= kLineInputs ? 0xFFFFFFFFU : (1U << left) - 1U);
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask & 0xFFFFU), x + k);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + k + 16);
    const __m512bh line = _mm512_cvtne2ps_pbh(high, low);
    __builtin_memcpy(out + k * 2, &line, sizeof line);
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
