// Sets that were formed lately: a request with the experts and weights of an earlier one starts with their set.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "adapters/adapter_set.h"

namespace expert {

// Thread-safe. Holds its sets, and with them their adapters, until they are forgotten or newer sets take their place.
class AdapterSetCache {
 public:
  explicit AdapterSetCache(size_t capacity = 32) : capacity_(capacity) {}

  // As AdapterSet::compose, in whatever order the experts are named.
  std::shared_ptr<const AdapterSet> find_or_compose(std::span<const WeightedAdapter> experts, int site_count,
                                                    int max_experts = kDefaultMaxExperts);
  // Drops every set the adapter is part of.
  void forget(const Adapter& adapter);
  size_t size() const;

 private:
  using Key = std::vector<WeightedAdapter>;  // by address: adapters of held sets stay, so their addresses do
  struct Entry {
    Key key;
    int max_experts;
    std::shared_ptr<const AdapterSet> set;
  };
  static Key key_of(std::span<const WeightedAdapter> experts);

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // used last first
};

}  // namespace expert
