#include "engine/block_pool.h"

#include <algorithm>

#include "core/error.h"

namespace expert {

BlockPool::BlockPool(int32_t blocks, int32_t most_kept)
    : blocks_(static_cast<size_t>(blocks)), index_(blocks), most_kept_(most_kept) {
  free_.reserve(blocks_.size());
  for (int32_t block = blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t BlockPool::take() {
  int32_t block = -1;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
    fresh_ = std::max(fresh_, block + 1);
  } else if (kept_ > 0) {
    block = evict();
  } else {
    return -1;
  }
  blocks_[static_cast<size_t>(block)].uses = 1;
  return block;
}

void BlockPool::release(int32_t block) {
  if (block < 0 || block >= total() || uses(block) == 0) {
    fail(ErrorCode::internal, "KV block {} was given back twice", block);
  }
  if (--blocks_[static_cast<size_t>(block)].uses > 0) return;
  if (index_.contains(block)) {
    keep(block);
  } else {
    free_.push_back(block);
  }
}

int32_t BlockPool::publish(int32_t block, const PrefixRoot& root, int32_t parent, BlockTokens tokens) {
  if (most_kept_ == 0) return block;
  const int32_t equal = index_.find(root, parent, tokens);
  if (equal < 0) {
    index_.insert(block, root, parent, tokens);
    return block;
  }
  use(equal);
  ++deduplicated_;
  release(block);
  return equal;
}

void BlockPool::use(int32_t block) {
  if (blocks_[static_cast<size_t>(block)].uses++ == 0) unlink(block);
}

void BlockPool::keep(int32_t block) {
  Block& entry = blocks_[static_cast<size_t>(block)];
  entry.older = newest_;
  entry.newer = -1;
  (newest_ >= 0 ? blocks_[static_cast<size_t>(newest_)].newer : oldest_) = block;
  newest_ = block;
  if (++kept_ > most_kept_) free_.push_back(evict());
}

void BlockPool::unlink(int32_t block) {
  Block& entry = blocks_[static_cast<size_t>(block)];
  (entry.older >= 0 ? blocks_[static_cast<size_t>(entry.older)].newer : oldest_) = entry.newer;
  (entry.newer >= 0 ? blocks_[static_cast<size_t>(entry.newer)].older : newest_) = entry.older;
  --kept_;
}

// The kept block that was used longest ago: it can be found no more.
int32_t BlockPool::evict() {
  const int32_t block = oldest_;
  unlink(block);
  index_.erase(block);
  ++evictions_;
  return block;
}

}  // namespace expert
