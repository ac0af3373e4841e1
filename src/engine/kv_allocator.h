// Who owns which KV block. A fixed pool; all blocks of a request are taken at once, before it runs. Not thread-safe:
// the engine thread's.
#pragma once

#include <cstdint>
#include <vector>

namespace expert {

class KvAllocator {
 public:
  explicit KvAllocator(int32_t block_count);

  int32_t total() const noexcept { return static_cast<int32_t>(in_use_.size()); }
  int32_t available() const noexcept { return static_cast<int32_t>(free_.size()); }
  int32_t used() const noexcept { return total() - available(); }

  // Blocks for `tokens` positions.
  static int32_t blocks_for(int64_t tokens);

  // False, and nothing taken, when fewer than `count` are free.
  bool allocate(int32_t count, std::vector<int32_t>& blocks);
  // Empties `blocks`. A block that is not in use is a defect: throws internal.
  void release(std::vector<int32_t>& blocks);

 private:
  std::vector<int32_t> free_;  // a stack: blocks that were used last are warm
  std::vector<bool> in_use_;
};

}  // namespace expert
