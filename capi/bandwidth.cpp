#include "bandwidth.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace expert::capi {

namespace {

constexpr size_t kBytes = size_t{256} << 20;
constexpr int kPasses = 5;

// Two unpinned threads may share one core and show half of the bandwidth.
void pin_to_allowed_core([[maybe_unused]] int index) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int seen = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || seen++ != index) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    static_cast<void>(sched_setaffinity(0, sizeof one, &one));
    return;
  }
#endif
}

// Eight independent sums, so that the loop waits for memory and not for itself.
uint64_t read_all(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  }
  uint64_t sum = 0;
  for (uint64_t lane : sums) sum += lane;
  return sum;
}

}  // namespace

BandwidthProbe::BandwidthProbe(int threads)
    : threads_(std::max(threads, 1)),
      words_(kBytes / sizeof(uint64_t)),
      buffer_(std::make_unique_for_overwrite<uint64_t[]>(words_)) {
  // Written, so that every page is really there: untouched ones all read from one page of zeros.
  for (size_t i = 0; i < words_; ++i) buffer_[i] = i;
}

BandwidthProbe::~BandwidthProbe() = default;

double BandwidthProbe::measure() const {
  using Clock = std::chrono::steady_clock;
  const size_t share = words_ / static_cast<size_t>(threads_);
  std::atomic<uint64_t> sink = 0;
  std::barrier<> together(threads_);
  std::vector<Clock::time_point> marks(kPasses + 1);
  auto work = [&](int index) {
    pin_to_allowed_core(index);
    for (int pass = 0; pass <= kPasses; ++pass) {
      together.arrive_and_wait();
      if (index == 0) marks[static_cast<size_t>(pass)] = Clock::now();
      if (pass < kPasses) sink += read_all(buffer_.get() + share * static_cast<size_t>(index), share);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int index = 0; index < threads_; ++index) threads.emplace_back(work, index);
  }
  double best = 0;
  for (size_t pass = 0; pass < kPasses; ++pass) {
    const std::chrono::duration<double> seconds = marks[pass + 1] - marks[pass];
    const double bytes = static_cast<double>(share * sizeof(uint64_t)) * threads_;
    best = std::max(best, bytes / std::max(seconds.count(), 1e-9));
  }
  return best;
}

}  // namespace expert::capi
