#include "engine/waiting_line.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace expert {

void WaitingLine::add(std::unique_ptr<Sequence> sequence) {
  sequence->arrival = arrivals_++;
  sequence->queue = &callers_[sequence->caller];
  ++sequence->queue->waiting;
  waiting_.push_back(std::move(sequence));
}

void WaitingLine::put_back(std::unique_ptr<Sequence> sequence) {
  --sequence->queue->running;
  ++sequence->queue->waiting;
  waiting_.push_back(std::move(sequence));
}

void WaitingLine::leave(Sequence& sequence) {
  --sequence.queue->running;
  forget(sequence);
}

void WaitingLine::forget(Sequence& sequence) {
  if (sequence.queue->running == 0 && sequence.queue->waiting == 0) callers_.erase(sequence.caller);
  sequence.queue = nullptr;
}

// A clock that goes back makes nobody younger than new.
int64_t WaitingLine::steps_waited(Clock::time_point since, Clock::time_point now) const {
  return now <= since ? 0 : (now - since) / ageing_;
}

bool WaitingLine::precedes_within_caller(const Sequence& a, const Sequence& b, Clock::time_point now) const {
  const auto rank = [&](const Sequence& s) {
    return std::tuple(-(s.priority + steps_waited(s.arrived, now)), s.deadline, s.arrival);
  };
  return rank(a) < rank(b);
}

bool WaitingLine::precedes(const Sequence& a, const Sequence& b) const {
  const auto rank = [](const Sequence& s) { return std::tuple(-s.claim, s.queue->running, s.deadline, s.arrival); };
  return rank(a) < rank(b);
}

Sequence* WaitingLine::first(Clock::time_point now) {
  for (const auto& sequence : waiting_) {
    if (!sequence->resident()) continue;
    Sequence*& first = sequence->queue->first;
    if (first == nullptr || precedes_within_caller(*sequence, *first, now)) first = sequence.get();
  }
  Sequence* best = nullptr;
  for (auto& [caller, queue] : callers_) {
    Sequence* first = std::exchange(queue.first, nullptr);
    if (first == nullptr) continue;
    first->claim = first->priority + steps_waited(std::max(first->arrived, queue.last_admission), now);
    first->level = first->priority + steps_waited(first->arrived, now);
    if (best == nullptr || precedes(*first, *best)) best = first;
  }
  return best;
}

// Each caller's in its own order; between callers as first() would choose, one admission after the other.
std::vector<Sequence*> WaitingLine::without_experts(Clock::time_point now) const {
  struct Turn {
    const CallerQueue* queue;
    int32_t running;
    Clock::time_point last_admission;
    std::vector<Sequence*> sequences;  // the next one last
  };
  std::vector<Turn> turns;
  for (const auto& sequence : waiting_) {
    if (sequence->resident()) continue;
    const CallerQueue* queue = sequence->queue;
    auto turn = std::ranges::find(turns, queue, &Turn::queue);
    if (turn == turns.end()) turn = turns.insert(turn, {queue, queue->running, queue->last_admission, {}});
    turn->sequences.push_back(sequence.get());
  }
  for (Turn& turn : turns) {
    std::ranges::sort(turn.sequences, [&](auto* a, auto* b) { return precedes_within_caller(*b, *a, now); });
  }
  std::vector<Sequence*> order;
  while (!turns.empty()) {
    const auto next = std::ranges::min_element(turns, {}, [&](const Turn& turn) {
      const Sequence& first = *turn.sequences.back();
      const int64_t claim = first.priority + steps_waited(std::max(first.arrived, turn.last_admission), now);
      return std::tuple(-claim, turn.running, first.deadline, first.arrival);
    });
    order.push_back(next->sequences.back());
    next->sequences.pop_back();
    ++next->running;
    next->last_admission = now;
    if (next->sequences.empty()) turns.erase(next);
  }
  return order;
}

std::unique_ptr<Sequence> WaitingLine::admit(const Sequence* sequence, Clock::time_point now) {
  const auto found =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& waiting) { return waiting.get() == sequence; });
  std::unique_ptr<Sequence> admitted = std::move(*found);
  waiting_.erase(found);
  --admitted->queue->waiting;
  ++admitted->queue->running;
  admitted->queue->last_admission = now;
  return admitted;
}

}  // namespace expert
