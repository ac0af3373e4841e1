#include "engine/prefix_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace expert {
namespace {

uint64_t mix(uint64_t x) {  // the finaliser of SplitMix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

PrefixRoot prefix_root(const PrefixKey& key) {
  Sha256 sha;
  for (const std::string_view field : {key.base, key.adapters, key.soft_prompt, key.salt}) sha.update_framed(field);
  return sha.finish();
}

PrefixIndex::PrefixIndex(int32_t blocks)
    : entries_(static_cast<size_t>(blocks)),
      buckets_(std::bit_ceil(static_cast<size_t>(std::max(blocks, 1)) * 2), -1) {}

uint32_t PrefixIndex::bucket_of(const PrefixRoot& root, int32_t parent, BlockTokens tokens) const {
  uint64_t hash = static_cast<uint64_t>(parent) + 1;
  if (parent < 0) std::memcpy(&hash, root.data(), sizeof hash);
  for (const int32_t token : tokens) hash = mix(hash + static_cast<uint32_t>(token) + 0x9E3779B97F4A7C15);
  return static_cast<uint32_t>(hash & (buckets_.size() - 1));
}

int32_t PrefixIndex::find(const PrefixRoot& root, int32_t parent, BlockTokens tokens) const {
  for (int32_t block = buckets_[bucket_of(root, parent, tokens)]; block >= 0;) {
    const Entry& entry = entries_[static_cast<size_t>(block)];
    if (entry.parent == parent && (parent >= 0 || entry.root == root) &&
        std::equal(tokens.begin(), tokens.end(), entry.tokens.begin())) {
      return block;
    }
    block = entry.next;
  }
  return -1;
}

void PrefixIndex::insert(int32_t block, const PrefixRoot& root, int32_t parent, BlockTokens tokens) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  if (entry.present) fail(ErrorCode::internal, "KV block {} is in the prefix index already", block);
  std::copy(tokens.begin(), tokens.end(), entry.tokens.begin());
  entry.root = root;
  entry.parent = parent;
  entry.bucket = bucket_of(root, parent, tokens);
  entry.next = buckets_[entry.bucket];
  entry.present = true;
  buckets_[entry.bucket] = block;
  ++size_;
}

void PrefixIndex::erase(int32_t block) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  if (!entry.present) fail(ErrorCode::internal, "KV block {} is not in the prefix index", block);
  int32_t* link = &buckets_[entry.bucket];
  while (*link != block) link = &entries_[static_cast<size_t>(*link)].next;
  *link = entry.next;
  entry.present = false;
  --size_;
}

}  // namespace expert
