#include "adapters/adapter_set.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "io/sha256.h"

namespace expert {
namespace {

std::vector<WeightedAdapter> effective(std::span<const WeightedAdapter> experts) {
  std::vector<WeightedAdapter> kept;
  for (const WeightedAdapter& expert : experts) {
    if (!expert.adapter) fail(ErrorCode::invalid_request, "an expert is missing");
    if (!std::isfinite(expert.weight)) {
      fail(ErrorCode::invalid_request, "expert weight {} is not a finite number", expert.weight);
    }
    if (expert.weight != 0) kept.push_back(expert);
  }
  return kept;
}

ContentHash hash_of(const std::vector<WeightedAdapter>& experts) {
  Sha256 sha;
  for (const WeightedAdapter& expert : experts) {
    sha.update(std::as_bytes(std::span(expert.adapter->hash())));
    sha.update_number(std::bit_cast<uint32_t>(expert.weight));
  }
  const Digest digest = sha.finish();
  ContentHash hash{};
  std::memcpy(hash.data(), digest.data(), hash.size());
  return hash;
}

}  // namespace

std::shared_ptr<const AdapterSet> AdapterSet::compose(std::span<const WeightedAdapter> experts, int site_count,
                                                      int max_experts) {
  const std::shared_ptr<AdapterSet> set(new AdapterSet());
  set->experts_ = effective(experts);
  if (static_cast<int64_t>(set->experts_.size()) > max_experts) {
    fail(ErrorCode::invalid_request, "{} experts on one request; the limit is {}", set->experts_.size(), max_experts);
  }
  const auto hash_of_expert = [](const WeightedAdapter& expert) -> const ContentHash& {
    return expert.adapter->hash();
  };
  std::ranges::sort(set->experts_, {}, hash_of_expert);
  if (std::ranges::adjacent_find(set->experts_, {}, hash_of_expert) != set->experts_.end()) {
    fail(ErrorCode::invalid_request, "the same expert is named twice; give it once, with the sum of the weights");
  }

  set->by_site_.assign(static_cast<size_t>(site_count), -1);
  for (const WeightedAdapter& expert : set->experts_) {
    for (const SiteDelta& delta : expert.adapter->deltas()) {
      int& index = set->by_site_.at(static_cast<size_t>(delta.site));
      if (index < 0) {
        index = static_cast<int>(set->deltas_.size());
        set->deltas_.emplace_back();
      }
      set->deltas_[static_cast<size_t>(index)].low_rank.push_back({delta.a, delta.b, expert.weight});
    }
  }
  set->hash_ = hash_of(set->experts_);
  return set;
}

const LinearDelta* AdapterSet::delta(int site) const noexcept {
  if (site < 0 || static_cast<size_t>(site) >= by_site_.size()) return nullptr;
  const int index = by_site_[static_cast<size_t>(site)];
  return index < 0 ? nullptr : &deltas_[static_cast<size_t>(index)];
}

}  // namespace expert
