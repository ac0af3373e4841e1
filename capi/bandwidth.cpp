#include "bandwidth.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace expert::capi {

namespace {

constexpr size_t kBytes = size_t{512} << 20;
constexpr int kPasses = 3;

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

// Sum of 64-bit words, a cache line from each of kStreams places in turn, in sums that do not wait for each other.
template <size_t kStreams>
uint64_t sum_words(const std::byte* bytes, size_t count) {
  typedef uint64_t Vector __attribute__((vector_size(16)));
  constexpr size_t kLine = 4;
  const auto* vectors = reinterpret_cast<const Vector*>(bytes);
  const size_t length = count / sizeof(Vector) / kStreams / kLine * kLine;
  Vector lane[kStreams][kLine] = {};
  for (size_t i = 0; i < length; i += kLine) {
#pragma GCC unroll 8
    for (size_t s = 0; s < kStreams; ++s) {
#pragma GCC unroll 4
      for (size_t j = 0; j < kLine; ++j) lane[s][j] += vectors[s * length + i + j];
    }
  }
  Vector sum = {};
  for (const auto& stream : lane) sum += stream[0] + stream[1] + stream[2] + stream[3];
  return sum[0] + sum[1];
}

uint64_t sum_streams(const std::byte* bytes, size_t count, size_t streams) {
  switch (streams) {
    case 1:
      return sum_words<1>(bytes, count);
    case 2:
      return sum_words<2>(bytes, count);
    case 4:
      return sum_words<4>(bytes, count);
    default:
      return sum_words<8>(bytes, count);
  }
}

}  // namespace

BandwidthProbe::BandwidthProbe(int threads)
    : threads_(std::max(threads, 1)), block_(Pages::allocate(kBytes, Pages::Content::any)) {
  // Written, so that every page is really there: untouched ones all read from one page of zeros.
  std::fill_n(block_.start, kBytes, std::byte{1});
}

BandwidthProbe::~BandwidthProbe() { block_.release(); }

std::vector<double> BandwidthProbe::passes(size_t streams, int count) const {
  using Clock = std::chrono::steady_clock;
  const size_t share = kBytes / static_cast<size_t>(threads_) / 4096 * 4096;
  std::atomic<uint64_t> sink = 0;
  std::barrier<> together(threads_);
  std::vector<Clock::time_point> marks(static_cast<size_t>(count) + 1);
  auto work = [&](int index) {
    pin_to_allowed_core(index);
    for (int pass = 0; pass <= count; ++pass) {
      together.arrive_and_wait();
      if (index == 0) marks[static_cast<size_t>(pass)] = Clock::now();
      if (pass < count) sink += sum_streams(block_.start + share * static_cast<size_t>(index), share, streams);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int index = 0; index < threads_; ++index) threads.emplace_back(work, index);
  }
  std::vector<double> rates;
  for (size_t pass = 0; pass < static_cast<size_t>(count); ++pass) {
    const std::chrono::duration<double> seconds = marks[pass + 1] - marks[pass];
    rates.push_back(static_cast<double>(share) * threads_ / std::max(seconds.count(), 1e-9));
  }
  return rates;
}

double BandwidthProbe::measure() const {
  double best = 0;
  for (const size_t streams : kStreams) {
    for (const double rate : passes(streams, kPasses)) best = std::max(best, rate);
  }
  return best;
}

}  // namespace expert::capi
