// One loaded expert: its kind parsed, checked against the base and lowered to packed panels. Immutable, shared by all
// requests that use it; freed with the last of them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/site.h"
#include "backend/backend.h"
#include "core/json.h"
#include "io/safetensors.h"

namespace expert {

using ContentHash = std::array<uint8_t, 32>;

// What an expert does to one site before any request's weight: the terms of linear_delta.h. Vectors stay on the host,
// because a set multiplies those of several experts into one; empty: ones, or zeros for the bias.
struct SiteDelta {
  int site = 0;
  int64_t outputs = 0;
  MatrixPtr a;  // [rank, in]; of an embedding [in, rank], a table
  MatrixPtr b;  // [out, rank], the kind's own scale multiplied in
  MatrixPtr d;  // [out, in]; of an embedding [in, out], a table
  bool replaces_base = false;       // e = 0 everywhere
  std::vector<float> input_scale;   // d
  std::vector<float> output_scale;  // e
  std::vector<float> result_scale;  // c
  std::vector<float> bias;          // db
};

// What lowering must know of the base model. Lives while the adapter loads; the backend as long as the adapter.
struct AdapterBase {
  const SiteTable& sites;
  Backend& backend;
  WeightFormat format = WeightFormat::f32;   // of the experts' matrices
  std::function<TensorSet()> tensors;        // the checkpoint as published; opened only to compare with it
  std::function<std::string()> fingerprint;  // asked for only by what is cached on disk
  std::string cache_directory;               // for what is costly to compute (DoRA's norms); empty: nothing is cached
};

class Adapter {
 public:
  struct Source {
    std::string origin;            // for error messages: the path the user gave
    const Json* config = nullptr;  // adapter_config.json
    const SafeTensors* tensors = nullptr;
    ContentHash hash{};  // of the package's bytes
    std::function<ContentHash()> late_hash;  // instead, where it may still be computed: asked for last
    ContentHash content_hash() const { return late_hash ? late_hash() : hash; }
  };

  // Checks all names and shapes, then reads every tensor once, checks that its values are finite, and packs it. Throws
  // load (malformed, or an option that is not supported, by name) and incompatible (a method that is not supported, by
  // name; shapes, modules or values of another base).
  static std::shared_ptr<const Adapter> load(const Source& source, const AdapterBase& base);

  const ContentHash& hash() const noexcept { return hash_; }
  // "lora", "rslora", "dora", "ia3", "prompt_tuning", "p_tuning".
  const std::string& kind() const noexcept { return kind_; }
  // base_model_name_or_path: a PEFT directory says no more about its base, so a mismatch is at most a warning.
  const std::string& base_model() const noexcept { return base_model_; }
  size_t size_bytes() const noexcept { return size_bytes_; }                 // in memory
  const std::vector<SiteDelta>& deltas() const noexcept { return deltas_; }  // ascending by site
  // Rows that stand before the prompt, f32 [rows, hidden] on the device; empty for most kinds.
  const Tensor& soft_prompt() const noexcept { return soft_prompt_; }
  const std::vector<float>& soft_prompt_values() const noexcept { return soft_prompt_values_; }  // the same, on the host
  Backend& backend() const noexcept { return *backend_; }

 private:
  Adapter() = default;

  ContentHash hash_{};
  std::string kind_;
  std::string base_model_;
  size_t size_bytes_ = 0;
  std::vector<SiteDelta> deltas_;
  Tensor soft_prompt_;
  std::vector<float> soft_prompt_values_;
  Backend* backend_ = nullptr;
};

}  // namespace expert
