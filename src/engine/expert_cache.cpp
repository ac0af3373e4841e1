#include "engine/expert_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace expert {

void ExpertLease::wait() { cache_.wait(*this); }
void ExpertLease::release() { cache_.release(*this); }

// Holds the lock; what leaves memory goes after it, and whoever waits for a change hears of it.
class ExpertCache::Change {
 public:
  explicit Change(ExpertCache& cache) : cache_(cache), lock_(cache.mutex_) {}
  ~Change() {
    lock_.unlock();
    cache_.changed_.notify_all();
    for (const ExpertPtr& expert : dropped) {
      if (cache_.sets_ != nullptr && expert->adapter) cache_.sets_->forget(*expert->adapter);
    }
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

  std::vector<ExpertPtr> dropped;  // no longer in memory for anybody
  std::vector<ExpertPtr> let_go;   // by a claim
  std::shared_ptr<const AdapterSet> set;

 private:
  ExpertCache& cache_;
  std::unique_lock<std::mutex> lock_;
};

// --- bytes ----------------------------------------------------------------------------------------------------------

uint64_t ExpertCache::used_bytes() const {
  uint64_t sum = reserved_[static_cast<size_t>(Use::by_request)];
  for (const auto& [key, entry] : entries_) sum += entry.counts() ? entry.bytes : 0;
  return sum;
}

uint64_t ExpertCache::all_bytes() const {
  uint64_t sum = reserved_[0] + reserved_[1];
  for (const auto& [key, entry] : entries_) sum += entry.bytes;
  return sum;
}

uint64_t ExpertCache::held_bytes() const {
  uint64_t sum = 0;
  for (const auto& [key, entry] : entries_) sum += entry.handles > 0 ? entry.bytes : 0;
  return sum;
}

// Of the experts that nobody holds by hand.
uint64_t ExpertCache::bytes_of(const ExpertLease& lease) const {
  uint64_t sum = 0;
  for (const ExpertNeed& need : lease.needs()) {
    const auto entry = entries_.find(need.card->key);
    const bool held = need.held || (entry != entries_.end() && entry->second.handles > 0);
    if (!held) sum += need.card->bytes;
  }
  return sum;
}

// What does not fit beside the experts loaded by hand, even when every request has ended.
std::optional<Error> ExpertCache::why_never(uint64_t bytes) const {
  if (options_.budget != 0 && bytes > options_.budget) {
    return Error(ErrorCode::out_of_memory,
                 fmt::format("the experts of the request need {} bytes, expert_cache_bytes is {}", bytes,
                             options_.budget),
                 "raise expert_cache_bytes, or load the expert by hand");
  }
  const uint64_t held = held_bytes();
  if (options_.memory_limit != 0 && bytes + held > options_.memory_limit) {
    return Error(ErrorCode::out_of_memory,
                 fmt::format("the experts of the request need {} bytes; {} of the {} bytes left for experts by "
                             "memory_limit are loaded by hand",
                             bytes, held, options_.memory_limit),
                 "unload experts, or raise memory_limit");
  }
  return std::nullopt;
}

// Drops the experts that were used longest ago until `bytes` more fit. False: too much of it is pinned; then nothing is
// dropped.
bool ExpertCache::make_room(uint64_t bytes, Use use, Change& change) {
  const auto over = [&](uint64_t now, uint64_t limit) {
    return limit != 0 && now + bytes > limit ? now + bytes - limit : 0;
  };
  uint64_t excess = over(all_bytes(), options_.memory_limit);
  if (use == Use::by_request) excess = std::max(excess, over(used_bytes(), options_.budget));
  uint64_t evictable = 0;
  for (const auto& [key, entry] : entries_) evictable += entry.evictable() ? entry.bytes : 0;
  if (evictable < excess) return false;
  while (excess > 0) {
    auto oldest = entries_.end();
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (!entry->second.evictable()) continue;
      if (oldest == entries_.end() || entry->second.used < oldest->second.used) oldest = entry;
    }
    const uint64_t freed = oldest->second.bytes;
    ++counts_.evictions;
    counts_.evicted_bytes += freed;
    remove(oldest, change);
    excess -= std::min(excess, freed);
  }
  return true;
}

void ExpertCache::remove(Entries::iterator entry, Change& change) {
  if (entry->second.data) change.dropped.push_back(std::move(entry->second.data));
  entries_.erase(entry);
}

// --- claims ---------------------------------------------------------------------------------------------------------

ExpertCache::Claim ExpertCache::claim(std::vector<ExpertNeed> needs, ExpertLease::Clock::time_point asked, Turn turn) {
  Claim claim{std::make_shared<ExpertLease>(*this, std::move(needs), asked)};
  ExpertLease& lease = *claim.lease;
  Change change(*this);
  if (closed_) fail(ErrorCode::closed, "the engine was closed");
  if (const auto error = why_never(bytes_of(lease))) throw Error(*error);
  lease.arrival_ = ++arrivals_;
  if (turn == Turn::first) lease.rank_ = 0;
  if (waiting_.empty() && grant(lease, change)) {
    claim.to_form = begin_forming(lease);
  } else {
    waiting_.push_back(&lease);
    grant_waiting(change);
  }
  return claim;
}

void ExpertCache::put_in_order(std::span<ExpertLease* const> leases) {
  {
    const std::lock_guard lock(mutex_);
    uint64_t rank = 0;
    const auto in_place = [&](const ExpertLease* lease) { return lease->rank_ == rank++; };
    if (std::ranges::all_of(leases, in_place)) return;
  }
  Change change(*this);
  for (size_t i = 0; i < leases.size(); ++i) leases[i]->rank_ = i;
  grant_waiting(change);
}

void ExpertCache::grant_waiting(Change& change) {
  while (!waiting_.empty() && !closed_) {
    const auto first = std::ranges::min_element(waiting_, {}, [](const ExpertLease* lease) {
      return std::pair(lease->rank_, lease->arrival_);
    });
    ExpertLease& lease = **first;
    if (const auto error = why_never(bytes_of(lease))) {
      settle(lease, *error, change);
      continue;
    }
    if (!grant(lease, change)) return;
    std::erase(waiting_, &lease);
  }
}

// All or nothing: its experts are pinned, and there is room for those that are not in memory.
bool ExpertCache::grant(ExpertLease& lease, Change& change) {
  uint64_t missing = 0;
  std::vector<Entry*> present;
  for (const ExpertNeed& need : lease.needs()) {
    const auto entry = entries_.find(need.card->key);
    if (entry != entries_.end()) {
      present.push_back(&entry->second);
    } else if (!need.held) {
      missing += need.card->bytes;
    }
  }
  for (Entry* entry : present) ++entry->pins;  // so that they do not make room for the others
  const bool fits = make_room(missing, Use::by_request, change);
  for (Entry* entry : present) --entry->pins;
  if (fits) pin(lease);
  return fits;
}

void ExpertCache::pin(ExpertLease& lease) {
  for (const ExpertNeed& need : lease.needs()) {
    Entry& entry = entries_[need.card->key];
    if (!entry.card) {
      entry.card = need.card;
      entry.bytes = need.card->bytes;
    }
    if (!entry.data && need.held) {  // its user unloads it just now
      entry.data = need.held;
      entry.leaving = entry.handles == 0;
    }
    if (entry.pins == 0 && !entry.reading) entry.source = need.source;
    if (entry.data && !need.read_for_it) ++counts_.hits;
    entry.used = ++uses_;
    ++entry.pins;
  }
  granted_.push_back(&lease);
  lease.granted_ = true;
}

void ExpertCache::unpin(ExpertLease& lease, Change& change) {
  if (!lease.granted_) return;
  lease.granted_ = false;
  std::erase(granted_, &lease);
  std::ranges::move(lease.experts_, std::back_inserter(change.let_go));
  lease.experts_.clear();
  for (const ExpertNeed& need : lease.needs()) {
    const auto entry = entries_.find(need.card->key);
    if (--entry->second.pins > 0) continue;
    // One that is being read is kept when it has come: the reading is paid for.
    if (entry->second.data ? entry->second.leaving : !entry->second.reading) remove(entry, change);
  }
}

void ExpertCache::wait(ExpertLease& lease) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return lease.state() != ExpertLease::State::waiting; });
  if (lease.state() == ExpertLease::State::failed) throw Error(lease.error());
}

void ExpertCache::release(ExpertLease& lease) {
  Change change(*this);
  if (lease.released_) return;
  lease.released_ = true;
  std::erase(waiting_, &lease);
  if (lease.forming_) return;  // whoever forms its set still needs the experts
  change.set = std::move(lease.set_);
  unpin(lease, change);
  grant_waiting(change);
}

void ExpertCache::settle(ExpertLease& lease, const Error& error, Change& change) {
  std::erase(waiting_, &lease);
  unpin(lease, change);
  lease.error_.emplace(error.code(), error.what(), error.hint());  // a text of its own: two threads will read the two
  lease.state_.store(ExpertLease::State::failed, std::memory_order_release);
}

void ExpertCache::send_back(ExpertLease& lease, Change& change) {
  unpin(lease, change);
  waiting_.push_back(&lease);
}

// --- work -----------------------------------------------------------------------------------------------------------

// True when all experts are in memory; then the caller forms the set.
bool ExpertCache::begin_forming(ExpertLease& lease) {
  std::vector<ExpertPtr> experts;
  for (const ExpertNeed& need : lease.needs()) {
    const Entry& entry = entries_.at(need.card->key);
    if (!entry.data) return false;
    experts.push_back(entry.data);
  }
  lease.experts_ = std::move(experts);
  return lease.forming_ = true;
}

// False: nobody wants the set any more.
bool ExpertCache::end_forming(ExpertLease& lease, Change& change) {
  lease.forming_ = false;
  if (!lease.released_) return true;
  unpin(lease, change);
  grant_waiting(change);
  return false;
}

// Forming first, whoever asks for it: it takes a fraction of a reading, and what is formed runs beside the next one.
std::optional<ExpertWork> ExpertCache::next_locked() {
  std::vector<ExpertLease*> order;
  for (ExpertLease* lease : granted_) {
    if (lease->state() == ExpertLease::State::waiting && !lease->forming_ && !lease->released_) order.push_back(lease);
  }
  std::ranges::sort(order, {}, [](const ExpertLease* lease) { return std::pair(lease->rank_, lease->arrival_); });
  for (ExpertLease* lease : order) {
    const auto in_memory = [&](const ExpertNeed& need) { return entries_.at(need.card->key).data != nullptr; };
    if (!std::ranges::all_of(lease->needs(), in_memory)) continue;
    ExpertWork work;
    work.to_form = lease->weak_from_this().lock();
    if (!work.to_form) continue;  // its last owner is about to release it
    begin_forming(*lease);
    return work;  // a share in the lease is never dropped here, under the lock that its end needs
  }
  for (const ExpertLease* lease : order) {
    for (const ExpertNeed& need : lease->needs()) {
      Entry& entry = entries_.at(need.card->key);
      if (entry.data || entry.reading) continue;
      entry.reading = true;
      ExpertWork work;
      work.card = entry.card;
      work.source = entry.source;
      return work;
    }
  }
  return std::nullopt;
}

std::optional<ExpertWork> ExpertCache::next() {
  const std::lock_guard lock(mutex_);
  return closed_ ? std::nullopt : next_locked();
}

std::optional<ExpertWork> ExpertCache::wait_for_next() {
  std::optional<ExpertWork> work;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return closed_ || (work = next_locked()).has_value(); });
  return work;
}

void ExpertCache::formed(ExpertLease& lease, std::shared_ptr<const AdapterSet> set) {
  Change change(*this);
  if (!end_forming(lease, change)) return;
  lease.set_ = std::move(set);
  lease.state_.store(ExpertLease::State::ready, std::memory_order_release);
}

void ExpertCache::not_formed(ExpertLease& lease, const Error& error) {
  Change change(*this);
  if (!end_forming(lease, change)) return;
  settle(lease, error, change);
  grant_waiting(change);
}

// The claims that wait for this expert, its room made.
std::vector<ExpertLease*> ExpertCache::wanting(const std::string& key) const {
  std::vector<ExpertLease*> found;
  for (ExpertLease* lease : granted_) {
    if (lease->state() != ExpertLease::State::waiting || lease->forming_) continue;
    const auto is_it = [&](const ExpertNeed& need) { return need.card->key == key; };
    if (std::ranges::any_of(lease->needs(), is_it)) found.push_back(lease);
  }
  return found;
}

void ExpertCache::loaded(const ExpertPtr& expert) {
  Change change(*this);
  const auto at = entries_.find(expert->card->key);
  if (at == entries_.end()) return;
  Entry& entry = at->second;
  entry.reading = false;
  if (entry.data) return;  // somebody else read it meanwhile
  entry.data = expert;
  entry.bytes = expert->card->bytes;
  entry.used = ++uses_;
  ++counts_.loads;
  counts_.loaded_bytes += entry.bytes;
  if (!make_room(0, Use::by_request, change)) {  // it is larger than it looked
    for (ExpertLease* lease : wanting(expert->card->key)) send_back(*lease, change);
    make_room(0, Use::by_request, change);
  }
  grant_waiting(change);
}

void ExpertCache::not_loaded(const ExpertWork& work, const Error& error) {
  Change change(*this);
  const auto at = entries_.find(work.card->key);
  ++counts_.failures;
  if (at == entries_.end()) return;
  at->second.reading = false;
  if (at->second.data) return;  // somebody else read it meanwhile, perhaps from elsewhere
  const bool wanted = at->second.pins > 0;
  for (ExpertLease* lease : wanting(work.card->key)) {
    const auto asked_there = [&](const ExpertNeed& need) {
      return need.card->key == work.card->key && need.source.path == work.source.path;
    };
    if (std::ranges::any_of(lease->needs(), asked_there)) {
      settle(*lease, error, change);
    } else {
      send_back(*lease, change);
    }
  }
  if (!wanted) remove(at, change);  // otherwise it went with its last pin
  grant_waiting(change);
}

// --- read by whoever names it first, loaded by hand -----------------------------------------------------------------

bool ExpertCache::reserve(uint64_t bytes, Use use) {
  Change change(*this);
  if (use == Use::by_request) {
    if (const auto error = why_never(bytes)) throw Error(*error);
    if (!waiting_.empty()) return false;  // nobody overtakes those that wait for room
  }
  if (!make_room(bytes, use, change)) {
    if (use == Use::by_request) return false;
    throw Error(ErrorCode::out_of_memory,
                fmt::format("the expert needs {} bytes; {} of the {} bytes left for experts by memory_limit are in use",
                            bytes, all_bytes(), options_.memory_limit),
                "unload experts, wait for requests to end, or raise memory_limit");
  }
  reserved_[static_cast<size_t>(use)] += bytes;
  return true;
}

void ExpertCache::give_back(uint64_t bytes, Use use) {
  Change change(*this);
  reserved_[static_cast<size_t>(use)] -= bytes;
  grant_waiting(change);
}

ExpertPtr ExpertCache::add(const ExpertPtr& expert, uint64_t reserved, Use use) {
  Change change(*this);
  reserved_[static_cast<size_t>(use)] -= reserved;
  const auto at = entries_.try_emplace(expert->card->key).first;
  Entry& entry = at->second;
  if (!entry.card) entry.card = expert->card;
  if (!entry.data) {
    entry.data = expert;
    entry.bytes = expert->card->bytes;
    ++counts_.loads;
    counts_.loaded_bytes += entry.bytes;
  }
  entry.used = ++uses_;
  entry.handles += use == Use::by_hand ? 1 : 0;
  const ExpertPtr kept = entry.data;
  if (!make_room(0, use, change)) {
    entry.handles -= use == Use::by_hand ? 1 : 0;
    const bool removed = entry.pins == 0 && entry.handles == 0;
    if (removed) remove(at, change);
    if (use == Use::by_hand) {
      throw Error(ErrorCode::out_of_memory,
                  fmt::format("{} needs {} bytes, more than memory_limit leaves for experts", kept->card->name,
                              kept->card->bytes.load()),
                  "unload experts, wait for requests to end, or raise memory_limit");
    }
  }
  grant_waiting(change);
  return kept;
}

ExpertPtr ExpertCache::find(const std::string& key, Use use) {
  Change change(*this);
  const auto at = entries_.find(key);
  if (at == entries_.end() || !at->second.data) return nullptr;
  at->second.used = ++uses_;
  if (use == Use::by_hand) {
    ++at->second.handles;
    at->second.leaving = false;
    grant_waiting(change);
  }
  return at->second.data;
}

void ExpertCache::drop_handle(const ExpertData& expert) {
  Change change(*this);
  const auto at = entries_.find(expert.card->key);
  if (--at->second.handles > 0) return;
  at->second.leaving = true;
  if (at->second.pins == 0) remove(at, change);
  grant_waiting(change);
}

void ExpertCache::close() {
  Change change(*this);
  closed_ = true;
  const Error error(ErrorCode::closed, "the engine was closed");
  std::vector<ExpertLease*> open = waiting_;
  open.insert(open.end(), granted_.begin(), granted_.end());
  for (ExpertLease* lease : open) {
    if (lease->state() == ExpertLease::State::waiting && !lease->forming_) settle(*lease, error, change);
  }
}

ExpertCacheStats ExpertCache::stats() const {
  const std::lock_guard lock(mutex_);
  ExpertCacheStats stats = counts_;
  stats.bytes = all_bytes();
  stats.used_bytes = used_bytes();
  for (const auto& [key, entry] : entries_) {
    stats.experts += entry.data ? 1 : 0;
    stats.pinned += entry.data && entry.pins > 0 ? 1 : 0;
    stats.loading += entry.data ? 0 : 1;
  }
  stats.waiting = waiting_.size();
  return stats;
}

}  // namespace expert
