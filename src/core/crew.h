// Threads that go through the same operations side by side. What one of them would do alone before all begin, each does
// for itself; what they share they divide, and meet when it is done: one line between cores for an operation instead of
// a call, a plan and an end. It takes a core for each of them: where others use the cores as well, a meeting waits until
// the system lets the last one run, and a pool of which one thread does all serves better.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <vector>

#include "core/thread_pool.h"

namespace expert {

class CrewMember;

class Crew {
 public:
  explicit Crew(ThreadPool& pool);

  ThreadPool& pool() const noexcept { return pool_; }
  int size() const noexcept { return pool_.threads(); }
  CrewMember& member(int index) noexcept;

  // walk(index) on every thread at once, each its own index; returns when all have. Throws what the first of them threw: the
  // others stop where they would wait for it. False, and nothing called, where the pool has no threads for it now, or the
  // system had no cores for them lately. One call at a time, and none of a member meanwhile.
  template <typename Walk>
  bool walk(const Walk& walk) {
    if (!begin()) return false;
    const bool begun = pool_.run_together([&](int64_t index, int) {
      try {
        walk(static_cast<int>(index));
      } catch (...) {
        stop();
      }
    });
    end();
    return begun;
  }

 private:
  friend class CrewMember;

  bool begin();
  void end();
  void stop() noexcept;  // with the exception at hand

  ThreadPool& pool_;
  std::vector<CrewMember> members_;
  alignas(64) std::atomic<int64_t> arrived_{0};  // at meetings since the walk began
  alignas(64) std::atomic<bool> stopped_{false};
  std::exception_ptr error_;
  int pause_ = 0;   // walks that are not begun from now on, since members waited long
  int pauses_ = 0;  // how many the last time
};

// One thread of a crew, or, between walks, a thread that has operations done by the pool.
class alignas(64) CrewMember {
 public:
  CrewMember(Crew& crew, int index) noexcept : crew_(&crew), index_(index) {}

  bool walks() const noexcept { return walks_; }
  int index() const noexcept { return index_; }
  int size() const noexcept { return crew_->size(); }

  // share(worker) on up to `most` threads, each with its own number below size(); returns when all that began have ended. On a
  // walk every member has to come to it, and each does its own.
  template <typename Share>
  void share(int64_t most, const Share& share) {
    if (!walks_) {
      crew_->pool().run(most < size() ? most : size(), [&](int64_t, int worker) { share(worker); });
    } else {
      share(index_);
      meet();
    }
  }

  // task(index) for [0, count): on a walk for this member alone.
  template <typename Task>
  void by_itself(int64_t count, const Task& task) {
    if (!walks_) {
      crew_->pool().run(count, [&](int64_t index, int) { task(index); });
    } else {
      for (int64_t index = 0; index < count; ++index) task(index);
    }
  }
  // Where `wanted`, which all members find the same, change() on one thread while no other looks.
  template <typename Change>
  void once(bool wanted, const Change& change) {
    if (!wanted) return;
    if (walks_) meet();
    if (!walks_ || index_ == 0) change();
    if (walks_) meet();
  }
  // Of a walk: returns when all members have called it.
  void meet();
  // Returns when count >= due, which threads that work on the same operation will see to. On a walk it throws where one of them
  // has failed. Between walks several threads may be in it.
  void await(const std::atomic<int64_t>& count, int64_t due);

 private:
  friend class Crew;

  Crew* crew_;
  int index_;
  bool walks_ = false;
  int64_t due_ = 0;   // arrivals at the last meeting
  int long_waits_ = 0;  // of this walk
};

inline CrewMember& Crew::member(int index) noexcept { return members_[static_cast<size_t>(index)]; }

}  // namespace expert
