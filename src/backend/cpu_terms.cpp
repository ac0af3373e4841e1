#include "backend/cpu_terms.h"

#include "backend/op_checks.h"

namespace expert {

CpuTerms cpu_terms_of(std::span<const LowRankTerm> low_rank) {
  CpuTerms result;
  result.terms.reserve(low_rank.size());
  for (const LowRankTerm& term : low_rank) {
    const bool first = result.terms.empty();
    const CpuFactor& a =
        require_factor<CpuFactor>(term.a.get(), CpuFactor::Role::a, -1, first ? -1 : result.inputs, "A");
    const CpuFactor& b =
        require_factor<CpuFactor>(term.b.get(), CpuFactor::Role::b, first ? -1 : result.outputs, a.rows(), "B");
    if (first) {
      result.inputs = a.cols();
      result.outputs = b.rows();
    }
    result.a_ranks.add(a.storage(), a.rows());
    result.b_ranks.add(b.storage(), a.rows());
    result.terms.push_back({a.bytes(), b.bytes(), a.rows(), term.weight, a.storage(), b.storage()});
  }
  return result;
}

}  // namespace expert
