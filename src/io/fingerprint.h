// The identity of a base model: one hash over what its tensors are, however they are sharded.
#pragma once

#include <string>

#include "io/safetensors.h"

namespace expert {

// Lower-case hex of SHA-256 over, for every tensor sorted by name (bytewise):
//   len(name) name len(dtype) dtype rank dim… nbytes bytes      (numbers are 8 bytes little-endian, dtype as in the
//   file)
// Reads every byte once (about 0.5 s per GB with libcrypto).
std::string base_fingerprint(const TensorSet& tensors);

// The same, memoised in `cache_directory` (created when needed) under the paths and identities of the files; an entry
// that cannot be read or written is only a lost saving, never an error. An empty `cache_directory` memoises nothing.
std::string base_fingerprint(const TensorSet& tensors, const std::string& cache_directory);

}  // namespace expert
