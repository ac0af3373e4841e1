// The requests that wait, and which of them goes next.
//
// Between callers: the higher claim, then the caller with fewer requests running, then the nearer deadline, then
// arrival. A claim is the request's priority plus one for every `ageing` that its caller has waited for an admission;
// so a stream of urgent requests delays the others and starves none, and a caller who is being served does not rise
// with all of its backlog. Among one caller's requests each rises with its own waiting time. That, its level, it keeps
// while it runs. It is never less than its claim, so whoever is sent back to the line for a request of higher priority
// does not pass it there.
//
// A request whose experts are not in memory is passed over; it grows older meanwhile, so its place is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"

namespace expert {

// What the line knows of one caller.
struct CallerQueue {
  int32_t running = 0;
  int32_t waiting = 0;
  Clock::time_point last_admission{};
  Sequence* first = nullptr;  // scratch of WaitingLine::first()
};

class WaitingLine {
 public:
  explicit WaitingLine(Clock::duration ageing) : ageing_(ageing) {}

  void add(std::unique_ptr<Sequence> sequence);
  // The one that goes next, its `claim` and `level` set; null when nobody waits, or for experts only.
  Sequence* first(Clock::time_point now);
  // Those that wait for experts, in the order in which they would go if they had them.
  std::vector<Sequence*> without_experts(Clock::time_point now) const;
  // Takes out `sequence`, which waits, as admitted.
  std::unique_ptr<Sequence> admit(const Sequence* sequence, Clock::time_point now);
  // A running one comes back, keeping its place by arrival.
  void put_back(std::unique_ptr<Sequence> sequence);
  // A running one has ended.
  void leave(Sequence& sequence);
  // Moves those that `ended` is true for to `taken`.
  template <typename Ended>
  void take_if(const Ended& ended, std::vector<std::unique_ptr<Sequence>>& taken) {
    std::erase_if(waiting_, [&](std::unique_ptr<Sequence>& sequence) {
      if (!ended(*sequence)) return false;
      --sequence->queue->waiting;
      forget(*sequence);
      taken.push_back(std::move(sequence));
      return true;
    });
  }

  bool empty() const noexcept { return waiting_.empty(); }
  size_t size() const noexcept { return waiting_.size(); }
  size_t callers() const noexcept { return callers_.size(); }
  const std::vector<std::unique_ptr<Sequence>>& waiting() const noexcept { return waiting_; }

 private:
  int64_t steps_waited(Clock::time_point since, Clock::time_point now) const;
  bool precedes_within_caller(const Sequence& a, const Sequence& b, Clock::time_point now) const;
  bool precedes(const Sequence& a, const Sequence& b) const;
  void forget(Sequence& sequence);

  Clock::duration ageing_;
  uint64_t arrivals_ = 0;
  std::vector<std::unique_ptr<Sequence>> waiting_;
  std::unordered_map<std::string, CallerQueue> callers_;  // those that wait or run
};

}  // namespace expert
