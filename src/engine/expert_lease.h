// The claim of one request on its experts: all of them or none. Until they are in memory the request waits; from then to
// the end of the request none of them is evicted.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "adapters/adapter_set.h"
#include "core/error.h"
#include "engine/expert_data.h"

namespace expert {

class ExpertCache;

// Made and changed by ExpertCache. Any thread may look at it; it must not outlive the cache.
class ExpertLease : public std::enable_shared_from_this<ExpertLease> {
 public:
  enum class State : uint8_t { waiting, ready, failed };

  using Clock = std::chrono::steady_clock;

  ExpertLease(ExpertCache& cache, std::vector<ExpertNeed> needs, Clock::time_point asked)
      : cache_(cache), needs_(std::move(needs)), asked_(asked) {}
  ~ExpertLease() { release(); }
  ExpertLease(const ExpertLease&) = delete;
  ExpertLease& operator=(const ExpertLease&) = delete;

  State state() const noexcept { return state_.load(std::memory_order_acquire); }
  const AdapterSet* set() const noexcept { return set_.get(); }  // when ready, until release()
  const Error& error() const noexcept { return *error_; }        // when failed
  const std::vector<ExpertNeed>& needs() const noexcept { return needs_; }
  Clock::time_point asked() const noexcept { return asked_; }  // since when its request waits
  int64_t soft_prompt_rows() const noexcept {
    int64_t rows = 0;
    for (const ExpertNeed& need : needs_) rows += need.card->soft_prompt_rows;
    return rows;
  }
  // Its experts, in the order of needs(), for whoever forms the set.
  const std::vector<ExpertPtr>& experts() const noexcept { return experts_; }

  // Until it is ready. Throws why it failed.
  void wait();
  // The request needs them no more. A second call is harmless.
  void release();

 private:
  friend class ExpertCache;

  ExpertCache& cache_;
  const std::vector<ExpertNeed> needs_;
  const Clock::time_point asked_;
  std::atomic<State> state_{State::waiting};
  std::shared_ptr<const AdapterSet> set_;
  std::optional<Error> error_;

  // The cache's, under its lock.
  std::vector<ExpertPtr> experts_;
  uint64_t rank_ = UINT64_MAX;  // place among those that wait; new ones last
  uint64_t arrival_ = 0;
  bool granted_ = false;   // its experts are pinned, and room was made for those that are still to be read
  bool forming_ = false;   // somebody forms its set: the pins stay until that is done
  bool released_ = false;
};

}  // namespace expert
