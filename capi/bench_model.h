// What a benchmark needs of a base model: the bytes a token reads, and random experts of its shape.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/config.h"

namespace expert::capi {

struct LinearShape {
  std::string name;  // "self_attn.q_proj"
  int64_t in = 0;
  int64_t out = 0;
};

// The seven linear layers of one decoder layer.
std::vector<LinearShape> linear_shapes(const ModelConfig& config);

// Bytes read to make one token: every linear layer and the head once, and keys and values of `context` positions.
// Norms, biases and one row of the embedding are left out.
double base_bytes_per_token(const ModelConfig& config, double bytes_per_weight, double bytes_per_kv, double context);
// The same of one expert of this rank on every linear layer.
double expert_bytes_per_token(const ModelConfig& config, int64_t rank, double bytes_per_weight);

// A directory that is removed with this object.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A PEFT LoRA directory on every linear layer, BF16, with values that depend on `seed`.
void write_random_expert(const std::filesystem::path& directory, const ModelConfig& config, int64_t rank,
                         uint64_t seed);

}  // namespace expert::capi
