// Random experts of a model's shape, for measuring.
#pragma once

#include <cstdint>
#include <filesystem>

#include "models/config.h"

namespace expert::capi {

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
