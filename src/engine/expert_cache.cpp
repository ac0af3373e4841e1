#include "engine/expert_cache.h"

#include <algorithm>

namespace expert {
namespace {

// Whoever else holds it took its share from here or from a handle, and gives it back without asking: a count of one is
// final while the list is locked, a larger one may be out of date, which costs one more round.
bool is_pinned(const ExpertCache::Ptr& expert) { return expert.use_count() > 1; }

}  // namespace

void ExpertCache::keep(const Ptr& expert) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find(kept_.begin(), kept_.end(), expert);
  if (found == kept_.end()) {
    kept_.push_front(expert);
  } else {
    kept_.splice(kept_.begin(), kept_, found);
  }
}

void ExpertCache::forget(const Ptr& expert) {
  const std::lock_guard lock(mutex_);
  kept_.remove(expert);
}

ExpertCache::Ptr ExpertCache::drop_one() {
  const std::lock_guard lock(mutex_);
  for (auto expert = kept_.rbegin(); expert != kept_.rend(); ++expert) {
    if (is_pinned(*expert)) continue;
    Ptr dropped = std::move(*expert);
    kept_.erase(std::next(expert).base());
    evictions_.fetch_add(1, std::memory_order_relaxed);
    return dropped;  // its memory is given back without the lock
  }
  return nullptr;
}

size_t ExpertCache::kept() const {
  const std::lock_guard lock(mutex_);
  return kept_.size();
}

size_t ExpertCache::pinned() const {
  const std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(kept_.begin(), kept_.end(), is_pinned));
}

}  // namespace expert
