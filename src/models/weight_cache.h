// Packed weights of one model in one file of our own, mapped on the next start instead of packed again.
//
// The file is written to a temporary name, fsynced, renamed and never changed. Its key covers the identity of every
// source file, the backend's layout and the weight format; header and contents carry checksums. A file that is stale,
// cut or damaged is ignored, never an error: the weights are packed from the source as if it were not there.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "io/file.h"
#include "io/safetensors.h"

namespace expert {

// What a cache file must have been made from: `weights` names the formats (weights_name).
struct WeightCacheKey {
  std::string path;    // of the cache file: one per model directory, layout and format
  std::string digest;  // 32 bytes, over the identities of the source files
};

WeightCacheKey weight_cache_key(const std::string& cache_directory, const std::string& model_directory,
                                const TensorSet& tensors, const BackendInfo& backend, std::string_view weights);

struct CachedMatrix {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  ByteView bytes;
};

class WeightCache {
 public:
  // Empty where there is no usable file. Compares the checksums of all of it, with up to `threads` threads, unless that
  // was done before and the file's identity is still the same (remembered in `weights/` beside it). Brings the pages in,
  // but for those of a matrix that is `unwanted`.
  static std::optional<WeightCache> open(const WeightCacheKey& key, int threads = 1, std::string_view unwanted = {});

  // Null where the file has no such matrix or the backend does not take it.
  MatrixPtr find(const std::string& name, int64_t rows, int64_t cols, WeightFormat format, Backend& backend) const;
  const std::shared_ptr<const MappedFile>& file() const noexcept { return file_; }
  MatrixPtr find_screen(const std::string& name, int64_t rows, int64_t cols, Backend& backend) const;

 private:
  const CachedMatrix* find(const std::string& name, int64_t rows, int64_t cols) const;

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, CachedMatrix, std::less<>> matrices_;
};

// Writes the file. False, with a line in the log and nothing left behind, when the disk is short of space, another
// process is writing the same file, or anything fails; also when `stop` is requested.
bool write_weight_cache(const WeightCacheKey& key, const std::vector<CachedMatrix>& matrices,
                        const std::stop_token& stop);

}  // namespace expert
