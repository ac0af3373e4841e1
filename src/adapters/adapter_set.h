// The experts of one request, composed: pointers into each expert's own panels, and the weights. Copies no matrix.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "adapters/adapter.h"
#include "backend/linear_delta.h"

namespace expert {

inline constexpr int kDefaultMaxExperts = 10;

struct WeightedAdapter {
  std::shared_ptr<const Adapter> adapter;
  float weight = 1.0F;
};

// Immutable and shareable between threads. Order-free: terms stand in content-hash order. An expert at weight 0 is
// dropped before the set is formed, so the result is bit-identical without it.
class AdapterSet {
 public:
  // Throws invalid_request for a weight that is not finite, more than `max_experts`, or the same expert twice.
  static std::shared_ptr<const AdapterSet> compose(std::span<const WeightedAdapter> experts, int site_count,
                                                   int max_experts = kDefaultMaxExperts);

  // Null where no expert of the set touches the site.
  const LinearDelta* delta(int site) const noexcept;
  bool empty() const noexcept { return experts_.empty(); }
  // Over the experts' content hashes and weights; equal sets have equal hashes. Part of every KV-cache key.
  const ContentHash& hash() const noexcept { return hash_; }
  std::span<const WeightedAdapter> experts() const noexcept { return experts_; }

 private:
  AdapterSet() = default;

  std::vector<WeightedAdapter> experts_;
  std::vector<LinearDelta> deltas_;
  std::vector<int> by_site_;  // index into deltas_, -1: none
  ContentHash hash_{};
};

}  // namespace expert
