// How fast this machine reads memory.
#pragma once

#include <cstdint>
#include <memory>

namespace expert::capi {

// Reads a buffer far larger than the caches with `threads` threads, each on its own core.
class BandwidthProbe {
 public:
  explicit BandwidthProbe(int threads);
  ~BandwidthProbe();
  BandwidthProbe(const BandwidthProbe&) = delete;
  BandwidthProbe& operator=(const BandwidthProbe&) = delete;

  double measure() const;  // bytes per second, best of several passes

 private:
  int threads_;
  size_t words_;
  std::unique_ptr<uint64_t[]> buffer_;
};

}  // namespace expert::capi
