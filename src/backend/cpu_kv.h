// The KV cache of the CPU backend: per layer, block and kv head one K panel and the V panels
// (kernels/cpu/cpu_kernels.h).
#pragma once

#include <memory>

#include "backend/backend.h"
#include "kernels/formats.h"

namespace expert {

class CpuKvStorage final : public KvStorage {
 public:
  // Throws Error(unsupported) for a dtype other than f32 and bf16, Error(out_of_memory).
  explicit CpuKvStorage(const KvShape& shape);

  size_t size_bytes() const noexcept override { return size_; }
  const KvShape& shape() const noexcept { return shape_; }
  kernels::Storage storage() const noexcept { return storage_; }
  // Block b of the head is at base + b * block_stride().
  unsigned char* base(int64_t layer, int64_t kv_head) const noexcept {
    return memory_.get() + layer * shape_.blocks * block_stride() + kv_head * head_bytes_;
  }
  int64_t block_stride() const noexcept { return shape_.kv_heads * head_bytes_; }

 private:
  KvShape shape_;
  kernels::Storage storage_;
  int64_t head_bytes_;
  size_t size_;
  std::shared_ptr<unsigned char> memory_;
};

}  // namespace expert
