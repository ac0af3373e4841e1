// Who uses which KV block: a fixed pool with reference counts, and the full blocks that are kept for their content.
//
// A block is free, in use (by one sequence or by several that share a prefix), or kept: nobody uses it, but its content
// can be found again. A block is taken from the free ones, then from the kept ones, used longest ago first. Not
// thread-safe: the engine thread's. Allocates in the constructor only.
//
// A sequence gives its blocks back last one first. So whoever is kept stands behind its successors in the line of
// eviction, and no block is forgotten while one that continues it can still be found.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/prefix_index.h"

namespace expert {

struct BlockPoolStats {
  int32_t total = 0;
  int32_t used = 0;           // by at least one sequence
  int32_t kept = 0;           // by none, but findable
  uint64_t evictions = 0;     // kept blocks that were forgotten to be filled anew
  uint64_t deduplicated = 0;  // blocks that two sequences had filled alike, and now share
};

class BlockPool {
 public:
  // At most `most_kept` blocks are kept while nobody uses them; 0: none, and nothing is ever shared.
  explicit BlockPool(int32_t blocks, int32_t most_kept = INT32_MAX);

  static int32_t blocks_for(int64_t tokens) {
    return static_cast<int32_t>((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
  }

  int32_t total() const noexcept { return static_cast<int32_t>(blocks_.size()); }
  int32_t kept() const noexcept { return kept_; }
  int32_t available() const noexcept { return static_cast<int32_t>(free_.size()) + kept_; }
  int32_t used() const noexcept { return total() - available(); }
  // From this one on no block has ever been in use; those before are used again first.
  int32_t fresh() const noexcept { return fresh_; }
  BlockPoolStats stats() const noexcept { return {total(), used(), kept_, evictions_, deduplicated_}; }

  // A block of its own; -1: all are in use.
  int32_t take();
  // Gives back one use. A block that is not in use is a defect: throws internal.
  void release(int32_t block);
  // Appends to `blocks` the longest chain, of `most` blocks, whose block i holds tokens_of(i); each is now used once
  // more.
  template <typename TokensOf>
  void share_prefix(const PrefixRoot& root, int32_t most, const TokensOf& tokens_of, std::vector<int32_t>& blocks) {
    int32_t parent = -1;
    for (int32_t i = 0; i < most; ++i) {
      const int32_t block = index_.find(root, parent, tokens_of(i));
      if (block < 0) return;
      use(block);
      blocks.push_back(block);
      parent = block;
    }
  }
  // `block`, in use and full, can be found from now on. Where an equal one can be found already, that one is used
  // instead and returned, and `block` is given back: what was computed twice has the same bits.
  int32_t publish(int32_t block, const PrefixRoot& root, int32_t parent, BlockTokens tokens);

  int32_t uses(int32_t block) const { return blocks_.at(static_cast<size_t>(block)).uses; }  // for tests
  const PrefixIndex& index() const noexcept { return index_; }

 private:
  struct Block {
    int32_t uses = 0;
    int32_t older = -1;  // in the line of kept ones
    int32_t newer = -1;
  };
  void use(int32_t block);
  void keep(int32_t block);
  void unlink(int32_t block);
  int32_t evict();

  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // a stack: blocks that were used last are warm
  PrefixIndex index_;
  int32_t most_kept_;
  int32_t kept_ = 0;
  int32_t fresh_ = 0;
  int32_t oldest_ = -1;
  int32_t newest_ = -1;
  uint64_t evictions_ = 0;
  uint64_t deduplicated_ = 0;
};

}  // namespace expert
