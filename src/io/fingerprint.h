// The identity of a base model: one hash over what its tensors are, however they are sharded.
#pragma once

#include <future>
#include <stop_token>
#include <string>

#include "io/safetensors.h"

namespace expert {

// Lower-case hex of SHA-256 over, for every tensor sorted by name (bytewise):
//   len(name) name len(dtype) dtype rank dim… nbytes bytes      (numbers are 8 bytes little-endian, dtype as in the
//   file)
// Reads every byte once (0.5 to 1 s per GB with libcrypto). Empty when it was asked to stop before its end.
std::string base_fingerprint(const TensorSet& tensors, const std::stop_token& stop = {});

// The same, memoised in `cache_directory` (created when needed) under the paths and identities of the files; an entry
// that cannot be read or written is only a lost saving, never an error. An empty `cache_directory` memoises nothing.
std::string base_fingerprint(const TensorSet& tensors, const std::string& cache_directory,
                             const std::stop_token& stop = {});

// The same, begun when it is made, beside whatever its owner does meanwhile. Thread-safe.
class PendingFingerprint {
 public:
  PendingFingerprint(TensorSet tensors, std::string cache_directory);
  ~PendingFingerprint();  // does not wait for the whole of it
  PendingFingerprint(const PendingFingerprint&) = delete;
  PendingFingerprint& operator=(const PendingFingerprint&) = delete;

  // Waits for it. Throws what base_fingerprint() threw.
  const std::string& get() const { return result_.get(); }

 private:
  std::stop_source stop_;
  std::shared_future<std::string> result_;
};

}  // namespace expert
