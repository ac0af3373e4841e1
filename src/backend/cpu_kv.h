// The KV cache of the CPU backend: per block, layer and kv head one K panel and the V panels (kernels/kv_format.h). What all
// layers keep of a block lies together, so memory is touched as blocks come into use and not for all layers at the first token.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "kernels/kv_format.h"

namespace expert {

class CpuKvStorage final : public KvStorage {
 public:
  // Throws Error(unsupported) for a dtype other than f32, bf16 and i8, Error(out_of_memory).
  explicit CpuKvStorage(const KvShape& shape);

  size_t size_bytes() const noexcept override { return size_; }
  void touch(int32_t first, int32_t count) override;
  const KvShape& shape() const noexcept { return shape_; }
  kernels::KvFormat format() const noexcept { return format_; }
  // Block b of the head is at base + b * block_stride().
  unsigned char* base(int64_t layer, int64_t kv_head) const noexcept {
    return memory_.get() + (layer * shape_.kv_heads + kv_head) * head_bytes_;
  }
  int64_t block_stride() const noexcept { return shape_.layers * shape_.kv_heads * head_bytes_; }

 private:
  KvShape shape_;
  kernels::KvFormat format_;
  int64_t head_bytes_;
  size_t size_;
  std::shared_ptr<unsigned char> memory_;
};

}  // namespace expert
