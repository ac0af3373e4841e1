// What full KV blocks hold, so that a request can find the blocks of a prefix that was computed before.
//
// An entry is a block, its parent (the block before it, itself an entry) and its tokens; the first of a chain names
// instead everything else that K and V depend on, as a PrefixRoot. Whoever walks from a root comparing tokens has
// therefore compared all of the prefix: the hash only picks candidates and proves nothing.
// Memory is taken once, for every block of the pool; nothing here allocates afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "io/sha256.h"

namespace expert {

// SHA-256 over whatever keys and values depend on besides the tokens and their positions.
using PrefixRoot = Digest;

struct PrefixKey {
  std::string_view base;         // of the engine: model, weight and KV format, rotation
  std::string_view adapters;     // AdapterSet::hash(); empty: the base alone
  std::string_view soft_prompt;  // the virtual rows before the prompt; empty: none
  std::string_view salt;         // the tenant's
};
PrefixRoot prefix_root(const PrefixKey& key);

using BlockTokens = std::span<const int32_t, kKvBlockTokens>;

class PrefixIndex {
 public:
  explicit PrefixIndex(int32_t blocks);

  // The block that holds `tokens` behind `parent` (-1: first of a chain, under `root`); -1: none.
  int32_t find(const PrefixRoot& root, int32_t parent, BlockTokens tokens) const;
  // `block` is no entry yet, and find() has found none.
  void insert(int32_t block, const PrefixRoot& root, int32_t parent, BlockTokens tokens);
  void erase(int32_t block);
  bool contains(int32_t block) const { return entries_[static_cast<size_t>(block)].present; }
  int32_t size() const noexcept { return size_; }

 private:
  struct Entry {
    std::array<int32_t, kKvBlockTokens> tokens{};
    PrefixRoot root{};  // of a first block
    int32_t parent = -1;
    int32_t next = -1;  // in its bucket
    uint32_t bucket = 0;
    bool present = false;
  };
  uint32_t bucket_of(const PrefixRoot& root, int32_t parent, BlockTokens tokens) const;

  std::vector<Entry> entries_;    // by block
  std::vector<int32_t> buckets_;  // first block of each
  int32_t size_ = 0;
};

}  // namespace expert
