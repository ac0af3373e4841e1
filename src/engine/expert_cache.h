// The host tier of experts: those that were loaded on demand stay in memory while there is room, used last first.
//
// The tier below is the disk the expert came from: one that was dropped is read again when it is named again. An expert
// that somebody holds (a handle, or a request that waits or runs) is pinned: dropping it from here would free nothing,
// so it is passed over. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

namespace expert {

struct ExpertData;

struct ExpertCacheStats {
  uint64_t hits = 0;       // experts a request named that were in memory
  uint64_t loads = 0;      // read from disk
  uint64_t evictions = 0;  // dropped from memory
};

class ExpertCache {
 public:
  using Ptr = std::shared_ptr<const ExpertData>;

  void note_hit() noexcept { hits_.fetch_add(1, std::memory_order_relaxed); }
  void note_load() noexcept { loads_.fetch_add(1, std::memory_order_relaxed); }

  // The expert was used now.
  void keep(const Ptr& expert);
  // Its user is done with it.
  void forget(const Ptr& expert);
  // Drops the one that was used longest ago and is not pinned, and gives it to the caller; null: there is none.
  Ptr drop_one();

  size_t kept() const;
  size_t pinned() const;  // of the kept ones
  ExpertCacheStats stats() const noexcept {
    return {hits_.load(std::memory_order_relaxed), loads_.load(std::memory_order_relaxed),
            evictions_.load(std::memory_order_relaxed)};
  }

 private:
  mutable std::mutex mutex_;
  std::list<Ptr> kept_;  // used last first
  std::atomic<uint64_t> hits_{0}, loads_{0}, evictions_{0};
};

}  // namespace expert
