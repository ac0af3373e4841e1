// The experts of one request, composed: pointers into each expert's own panels, the weights, and the few vectors that
// belong to the set. Copies no matrix.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "adapters/adapter.h"
#include "backend/linear_delta.h"

namespace expert {

inline constexpr int kDefaultMaxExperts = 10;

struct WeightedAdapter {
  std::shared_ptr<const Adapter> adapter;
  float weight = 1.0F;
  // Where its soft prompt stands among others': by load_order, then by name, whatever order the caller used.
  int64_t load_order = 0;
  std::string name = {};
};

// What an expert adds to the identity of a set; known also while its weights are on disk.
struct SetMember {
  ContentHash hash{};
  float weight = 1.0F;
  bool has_soft_prompt = false;
  int64_t load_order = 0;
  std::string name = {};
};

// The hash of the set that these experts make. Throws invalid_request for a weight that is not finite, more than
// `max_experts`, or the same expert twice; those at weight 0 do not count.
ContentHash set_hash(std::vector<SetMember> members, int max_experts = kDefaultMaxExperts);

// Immutable and shareable between threads. Order-free: terms stand in content-hash order. An expert at weight 0 is
// dropped before the set is formed, so the result is bit-identical without it.
class AdapterSet {
 public:
  // The formula of linear_delta.h: d and c are products of 1 + w (d_i - 1), e is 1 + sum w (e_i - 1); one expert alone at
  // weight 1 keeps its vectors bit for bit. Throws as set_hash(), and invalid_request for weights that make a scale or a
  // bias overflow.
  static std::shared_ptr<const AdapterSet> compose(std::span<const WeightedAdapter> experts, int site_count,
                                                   int max_experts = kDefaultMaxExperts);

  // Null where no expert of the set touches the site.
  const LinearDelta* delta(int site) const noexcept;
  bool empty() const noexcept { return experts_.empty(); }
  // set_hash() of its experts: equal sets have equal hashes. Part of every KV-cache key.
  const ContentHash& hash() const noexcept { return hash_; }
  std::span<const WeightedAdapter> experts() const noexcept { return experts_; }
  // Rows of all soft prompts, in their order, f32 [rows, hidden]; empty where there are none. Weights do not scale them.
  const Tensor& soft_prompt() const noexcept { return soft_prompt_; }

 private:
  class Vectors;
  AdapterSet() = default;
  void add_terms(int site_count);
  void add_vectors();
  void add_soft_prompts();

  std::vector<WeightedAdapter> experts_;
  std::vector<LinearDelta> deltas_;
  std::vector<int> by_site_;  // index into deltas_, -1: none
  Tensor soft_prompt_;
  ContentHash hash_{};
};

}  // namespace expert
