#include "adapters/adapter_set_cache.h"

#include <algorithm>
#include <functional>

namespace expert {

namespace {

bool same(const WeightedAdapter& a, const WeightedAdapter& b) {
  return a.adapter == b.adapter && a.weight == b.weight && a.load_order == b.load_order && a.name == b.name;
}

}  // namespace

AdapterSetCache::Key AdapterSetCache::key_of(std::span<const WeightedAdapter> experts) {
  Key key;
  key.reserve(experts.size());
  for (const WeightedAdapter& expert : experts) {
    if (expert.weight != 0) key.push_back(expert);
  }
  std::ranges::sort(key, std::less<>(), &WeightedAdapter::adapter);
  return key;
}

std::shared_ptr<const AdapterSet> AdapterSetCache::find_or_compose(std::span<const WeightedAdapter> experts,
                                                                   int site_count, int max_experts) {
  Key key = key_of(experts);
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(entries_, [&](const Entry& entry) {
      return entry.max_experts == max_experts && std::ranges::equal(entry.key, key, same);
    });
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
      return found->set;
    }
  }
  std::shared_ptr<const AdapterSet> set = AdapterSet::compose(experts, site_count, max_experts);
  std::list<Entry> dropped;  // freed after the lock
  const std::lock_guard lock(mutex_);
  entries_.push_front({std::move(key), max_experts, set});
  if (entries_.size() > capacity_) dropped.splice(dropped.begin(), entries_, std::prev(entries_.end()));
  return set;
}

void AdapterSetCache::forget(const Adapter& adapter) {
  std::list<Entry> dropped;
  const std::lock_guard lock(mutex_);
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto next = std::next(entry);
    const auto is_it = [&](const WeightedAdapter& expert) { return expert.adapter.get() == &adapter; };
    if (std::ranges::any_of(entry->key, is_it)) dropped.splice(dropped.begin(), entries_, entry);
    entry = next;
  }
}

size_t AdapterSetCache::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace expert
