#include "core/crew.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "core/cpu_pause.h"

namespace expert {

namespace {

constexpr int kSpins = 1024;         // some ten microseconds, before a thread that waits for another lets others run
constexpr int kMostLongWaits = 8;    // of a walk, which otherwise has one now and then
constexpr int kFirstPause = 64;      // walks
constexpr int kLongestPause = 4096;

// Thrown by members that wait for one that has thrown something else.
struct WalkStopped {};

}  // namespace

Crew::Crew(ThreadPool& pool) : pool_(pool) {
  members_.reserve(static_cast<size_t>(pool.threads()));
  for (int i = 0; i < pool.threads(); ++i) members_.emplace_back(*this, i);
}

bool Crew::begin() {
  if (pause_ > 0) {
    --pause_;
    return false;
  }
  arrived_.store(0, std::memory_order_relaxed);
  stopped_.store(false, std::memory_order_relaxed);
  for (CrewMember& member : members_) {
    member.walks_ = true;
    member.due_ = 0;
    member.long_waits_ = 0;
  }
  return true;
}

void Crew::end() {
  int waits = 0;
  for (CrewMember& member : members_) {
    member.walks_ = false;
    waits = std::max(waits, member.long_waits_);
  }
  pauses_ = waits > kMostLongWaits ? std::clamp(2 * pauses_, kFirstPause, kLongestPause) : 0;
  pause_ = pauses_;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Crew::stop() noexcept {
  if (!stopped_.exchange(true, std::memory_order_acq_rel)) error_ = std::current_exception();
}

void CrewMember::meet() {
  due_ += size();
  crew_->arrived_.fetch_add(1, std::memory_order_acq_rel);
  await(crew_->arrived_, due_);
}

void CrewMember::await(const std::atomic<int64_t>& count, int64_t due) {
  for (int spins = 0; count.load(std::memory_order_acquire) < due; ++spins) {
    if (spins < kSpins) {
      cpu_pause();
      continue;
    }
    if (walks_ && spins == kSpins) ++long_waits_;
    if (walks_ && crew_->stopped_.load(std::memory_order_acquire)) throw WalkStopped{};
    std::this_thread::yield();
  }
}

}  // namespace expert
