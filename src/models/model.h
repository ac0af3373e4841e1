// A base model: weights that are const after load, and forward(). Shared by everything; KV and requests live elsewhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "adapters/site.h"
#include "backend/backend.h"
#include "core/json.h"
#include "io/safetensors.h"
#include "models/batch.h"
#include "models/config.h"

namespace expert {

// automatic: as the files hold them, BF16 for BF16 files, F32 for F32 and F16 files. int4: embedding and head in INT8, which
// matter more than a layer; int4_all: they too in INT4.
enum class WeightChoice : uint8_t { automatic, f32, bf16, int8, int4, int4_all };

struct ModelOptions {
  WeightChoice weights = WeightChoice::automatic;
  std::filesystem::path cache_dir;                // of packed weights; empty: no cache is read or written
  uint64_t smallest_cached = uint64_t{64} << 20;  // bytes of a checkpoint; smaller ones are packed faster than a file is worth
  Json rope_scaling;                              // null: the configuration's own
  int64_t context_size = 0;                       // 0: config.context_limit
  bool head_screen = true;      // Backend::pack_screen, where it pays
  uint64_t memory_limit = 0;    // a screen takes a quarter at most of what the weights leave of it; 0: no limit
  std::function<void(double fraction)> progress;  // 0…1, on the calling thread
};

class Model {
 public:
  // Loads a Hugging Face directory: config.json, generation_config.json (optional), safetensors. `backend` must outlive
  // the model. Throws load (missing, malformed, cut while read, values that are not finite), unsupported (by name),
  // invalid_request (context_size), out_of_memory; nothing stays behind.
  static std::shared_ptr<const Model> load(const std::filesystem::path& directory, Backend& backend,
                                           const ModelOptions& options = {});
  virtual ~Model() = default;

  virtual const ModelConfig& config() const noexcept = 0;
  virtual const SiteTable& sites() const noexcept = 0;  // seven per layer, then lm_head, then the embedding
  virtual WeightFormat weight_format() const noexcept = 0;  // of the layers
  virtual WeightFormat head_format() const noexcept { return weight_format(); }  // of head and embedding
  virtual int64_t context_size() const noexcept = 0;
  virtual size_t weight_bytes() const noexcept = 0;  // resident
  virtual size_t bytes_per_token()
      const noexcept = 0;  // weights one decoded token reads (head included, embedding row not)
  // Of those the head's, and what its screen takes besides: most of the head is then not read where few logits are wanted.
  // 0: there is none.
  virtual size_t head_bytes() const noexcept { return 0; }
  virtual size_t head_screen_bytes() const noexcept { return 0; }
  virtual bool loaded_from_cache() const noexcept = 0;
  virtual KvShape kv_shape(int32_t blocks, DType dtype) const = 0;
  // SHA-256 over the sorted tensors, hex; computed on a thread of its own from the load on, which this waits for, and
  // memoised on disk under the cache directory. A file that changed meanwhile is a load error. Thread-safe.
  virtual std::string fingerprint() const = 0;
  // The checkpoint as published, opened again (a changed one is a load error). Thread-safe.
  virtual TensorSet source_tensors() const = 0;
  // Writes the packed weights for the next start; may run on a thread of its own while others use the model. False when
  // there is nothing to do (no cache directory, small model, loaded from the cache) or it could not be written, which
  // the log says; never throws for the disk.
  virtual bool write_weight_cache(const std::stop_token& stop = {}) const = 0;

  // For weights that come from the cache: huge pages that the system took away are read again (core/pages.h). For a thread of
  // its own, from time to time. False: it is of no use, now and later.
  virtual bool restore_huge_pages(const std::stop_token&) const { return false; }

  // Runs one step on the backend the model was loaded to. Returns f32 [logit_rows, vocab_size] on the device; valid
  // until the next forward. Where fewer than all logits of a row are wanted (batch.best_logits), those and their equals
  // are what they are otherwise, bit for bit, and others may be estimates below them. Not thread-safe: one thread drives
  // a backend.
  // A token outside the vocabulary or a position outside the context is invalid_request, before anything runs.
  virtual Tensor forward(const Batch& batch, KvStorage& kv) const = 0;
  // The final normalised hidden states of batch.logit_rows, f32 [logit_rows, hidden_size], instead of logits.
  virtual Tensor hidden(const Batch& batch, KvStorage& kv) const = 0;
};

// "f32", "bf16", "int8", "int4" or "int4-all".
const char* weights_name(WeightFormat layers, WeightFormat head);

}  // namespace expert
