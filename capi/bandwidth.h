// How fast this machine reads memory.
#pragma once

#include <cstddef>
#include <vector>

#include "core/pages.h"

namespace expert::capi {

// Reads a block larger than most caches with `threads` threads, each on its own core, the way weights are read: from
// huge pages where the system grants them, and from 1, 2, 4 or 8 places at a time, whichever this machine likes best.
class BandwidthProbe {
 public:
  static constexpr size_t kStreams[] = {1, 2, 4, 8};

  // Throws std::bad_alloc.
  explicit BandwidthProbe(int threads);
  ~BandwidthProbe();
  BandwidthProbe(const BandwidthProbe&) = delete;
  BandwidthProbe& operator=(const BandwidthProbe&) = delete;

  double measure() const;  // bytes per second, best of several passes of every number of streams
  std::vector<double> passes(size_t streams, int count) const;  // bytes per second of each

 private:
  int threads_;
  Pages block_;
};

}  // namespace expert::capi
