// One loaded expert: its kind parsed, checked against the base and lowered to packed panels. Immutable, shared by all
// requests that use it; freed with the last of them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "adapters/site.h"
#include "backend/backend.h"
#include "core/json.h"
#include "io/safetensors.h"

namespace expert {

using ContentHash = std::array<uint8_t, 32>;

// What an expert does to one site, before any request's weight.
struct SiteDelta {
  int site = 0;
  MatrixPtr a;  // [rank, in]
  MatrixPtr b;  // [out, rank], alpha / r (or alpha / sqrt(r)) multiplied in
};

class Adapter {
 public:
  struct Source {
    std::string origin;            // for error messages: the path the user gave
    const Json* config = nullptr;  // adapter_config.json
    const SafeTensors* tensors = nullptr;
    ContentHash hash{};  // of the package's bytes
  };

  // Checks all names and shapes, then reads every tensor once, checks that its values are finite, and packs it in
  // `format`. Throws load (malformed, or a kind or option that is not supported, by name) and incompatible (shapes or
  // modules of another base). `backend` must outlive the adapter.
  static std::shared_ptr<const Adapter> load(const Source& source, const SiteTable& sites, Backend& backend,
                                             WeightFormat format);

  const ContentHash& hash() const noexcept { return hash_; }
  const std::string& kind() const noexcept { return kind_; }  // "lora", "rslora"
  // base_model_name_or_path: a PEFT directory says no more about its base, so a mismatch is at most a warning.
  const std::string& base_model() const noexcept { return base_model_; }
  size_t size_bytes() const noexcept { return size_bytes_; }                 // packed, as read per token
  const std::vector<SiteDelta>& deltas() const noexcept { return deltas_; }  // ascending by site

 private:
  Adapter() = default;

  ContentHash hash_{};
  std::string kind_;
  std::string base_model_;
  size_t size_bytes_ = 0;
  std::vector<SiteDelta> deltas_;
};

}  // namespace expert
