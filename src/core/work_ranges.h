// Hands out the numbers [0, count) so that each worker gets neighbours, for work whose neighbours lie side by side in
// memory. A worker whose part is done takes from the end of another's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace expert {

class WorkRanges {
 public:
  explicit WorkRanges(int workers) : workers_(workers), ranges_(std::make_unique<Range[]>(static_cast<size_t>(workers))) {}

  // Not while next() is called.
  void fill(int64_t count) {
    for (int w = 0; w < workers_; ++w) {
      ranges_[w].store(pack(count * w / workers_, count * (w + 1) / workers_));
    }
  }

  // One worker's part of it, by that worker, while others may be in next(): they have had what was left before. Numbers that are not
  // filled in yet cannot be taken.
  void fill_part(int64_t count, int worker) {
    ranges_[worker].store(pack(count * worker / workers_, count * (worker + 1) / workers_));
  }

  // A number that nobody had before; -1 when there is none left. From any thread; several may be the same worker.
  int64_t next(int worker) noexcept {
    for (int w = 0; w < workers_; ++w) {
      const int64_t found = ranges_[(worker + w) % workers_].take(w == 0);
      if (found >= 0) return found;
    }
    return -1;
  }

 private:
  static uint64_t pack(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end);
  }

  class alignas(64) Range {
   public:
    void store(uint64_t range) { range_.store(range, std::memory_order_relaxed); }
    int64_t take(bool first) noexcept {
      uint64_t range = range_.load(std::memory_order_relaxed);
      while (true) {
        const auto begin = static_cast<int64_t>(range >> 32);
        const auto end = static_cast<int64_t>(range & 0xFFFFFFFFU);
        if (begin >= end) return -1;
        const uint64_t rest = first ? pack(begin + 1, end) : pack(begin, end - 1);
        if (range_.compare_exchange_weak(range, rest, std::memory_order_relaxed)) return first ? begin : end - 1;
      }
    }

   private:
    std::atomic<uint64_t> range_{0};  // first number in the upper half, the one behind the last in the lower
  };

  int workers_;
  std::unique_ptr<Range[]> ranges_;
};

}  // namespace expert
