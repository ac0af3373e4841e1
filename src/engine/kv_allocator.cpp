#include "engine/kv_allocator.h"

#include "backend/backend.h"
#include "core/error.h"

namespace expert {

KvAllocator::KvAllocator(int32_t block_count) : in_use_(static_cast<size_t>(block_count), false) {
  free_.reserve(in_use_.size());
  for (int32_t block = block_count - 1; block >= 0; --block) free_.push_back(block);
}

int32_t KvAllocator::blocks_for(int64_t tokens) {
  return static_cast<int32_t>((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
}

bool KvAllocator::allocate(int32_t count, std::vector<int32_t>& blocks) {
  if (count > available()) return false;
  blocks.reserve(blocks.size() + static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    in_use_[static_cast<size_t>(block)] = true;
    blocks.push_back(block);
  }
  return true;
}

void KvAllocator::release(std::vector<int32_t>& blocks) {
  for (const int32_t block : blocks) {
    const auto index = static_cast<size_t>(block);
    if (block < 0 || index >= in_use_.size() || !in_use_[index]) {
      fail(ErrorCode::internal, "KV block {} was released twice", block);
    }
    in_use_[index] = false;
    free_.push_back(block);
  }
  blocks.clear();
}

}  // namespace expert
