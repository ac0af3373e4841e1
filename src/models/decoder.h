// The decoder all supported architectures are: embedding, layers, final norm, head.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/fingerprint.h"
#include "models/checkpoint.h"
#include "models/layers.h"
#include "models/model.h"
#include "models/rope.h"

namespace expert {

class Decoder final : public Model {
 public:
  // `tensors` is read here only; nothing of it is kept. Throws as Model::load.
  Decoder(ModelConfig config, const TensorSet& tensors, const std::string& directory, Backend& backend,
          const ModelOptions& options);

  const ModelConfig& config() const noexcept override { return config_; }
  const SiteTable& sites() const noexcept override { return weights_.sites; }
  WeightFormat weight_format() const noexcept override { return weights_.format; }
  WeightFormat head_format() const noexcept override { return weights_.head_format; }
  int64_t context_size() const noexcept override { return context_size_; }
  size_t weight_bytes() const noexcept override { return weights_.weight_bytes; }
  size_t bytes_per_token() const noexcept override { return weights_.bytes_per_token; }
  size_t head_bytes() const noexcept override { return weights_.head.weight->size_bytes(); }
  size_t head_screen_bytes() const noexcept override {
    return weights_.head_screen ? weights_.head_screen->size_bytes() : 0;
  }
  bool loaded_from_cache() const noexcept override { return weights_.from_cache; }
  KvShape kv_shape(int32_t blocks, DType dtype) const override;
  std::string fingerprint() const override;
  TensorSet source_tensors() const override;
  bool write_weight_cache(const std::stop_token& stop) const override;
  bool restore_huge_pages(const std::stop_token& stop) const override;
  Tensor forward(const Batch& batch, KvStorage& kv) const override;
  Tensor hidden(const Batch& batch, KvStorage& kv) const override;

 private:
  // What a thread that walks through the layers beside others has for itself.
  struct Walker {
    Workspace wide;  // x and normed of its own; of the rest, which is common, handles that no other thread counts
    DeltaLists deltas;
  };
  // Memory of forward(), which one thread drives: grown to the largest batch, then reused.
  struct Scratch {
    int64_t capacity = 0;  // rows
    Workspace wide;        // of `capacity` rows
    Workspace work;        // the rows of this batch
    Tensor last;           // f32 [logit_rows, hidden]
    Tensor logits;         // f32 [logit_rows, vocab]
    std::vector<AdapterRows> rows;
    std::vector<AdapterRows> head_rows;
    DeltaLists deltas;
    std::vector<Walker> walkers;
    std::vector<int32_t> all_rows;  // 0, 1, 2, …
  };

  void check(const Batch& batch) const;
  void make_room(int64_t rows) const;
  void make_walkers(int count) const;
  std::span<const int32_t> all_rows(int64_t count) const;
  Pass start(const Batch& batch, KvStorage& kv) const;
  void embed(Pass& pass, const Batch& batch) const;
  Tensor pass_layers(Pass& pass, const Batch& batch) const;
  void walk_layers(const Pass& pass, Operations& operations, int walker) const;
  Tensor finish_wanted(Pass& pass, const Batch& batch) const;
  Tensor wanted_rows(const Tensor& x, const Batch& batch) const;

  ModelConfig config_;
  Backend& backend_;
  std::string directory_;
  std::string cache_directory_;
  std::vector<FileIdentity> identities_;  // of the weight files, as loaded
  PendingFingerprint fingerprint_;        // while the weights are packed
  int64_t context_size_ = 0;
  Checkpoint weights_;

  mutable RopeCache rope_;
  mutable Scratch scratch_;
};

}  // namespace expert
