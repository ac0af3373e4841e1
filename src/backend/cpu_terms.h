// The low-rank terms of one LinearDelta as CpuLinear reads them at every token: side by side, and checked once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu_factor.h"
#include "backend/linear_delta.h"

namespace expert {

struct CpuTerms {
  struct Term {
    const unsigned char* a;  // rows of A, side by side
    const unsigned char* b;
    int64_t rank;
    float weight;
    kernels::Storage a_storage;
    kernels::Storage b_storage;
  };
  // Of all terms together, by storage.
  struct Ranks {
    int64_t f32 = 0;
    int64_t bf16 = 0;
    void add(kernels::Storage storage, int64_t rank) { (storage == kernels::Storage::f32 ? f32 : bf16) += rank; }
    void add(const Ranks& other) {
      f32 += other.f32;
      bf16 += other.bf16;
    }
    int64_t total() const { return f32 + bf16; }
  };
  int64_t inputs = 0;
  int64_t outputs = 0;
  Ranks a_ranks;
  Ranks b_ranks;
  std::vector<Term> terms;
};

// Throws Error(internal) for matrices that pack_factors() did not make, or that do not fit one another.
CpuTerms cpu_terms_of(std::span<const LowRankTerm> low_rank);

}  // namespace expert
