// The model's vocabulary: token strings and their ids, both ways.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace expert {

// Filled once while a file is read, then only read (any number of threads). Memory is bounded by the bytes added: an id
// only reserves room once finish() has seen that ids are about as many as tokens.
class Vocab {
 public:
  // Errors: load for an id outside [0, 2^31).
  void add(std::string_view token, int64_t id);
  // Builds both ways. Errors: load for a repeated token, an id given twice or far beyond the number of tokens.
  void finish();

  // All below: after finish().
  std::optional<int32_t> find(std::string_view token) const;
  // The ids of many tokens, -1 where there is none: memory is asked for all of them before the first is waited for.
  void find_all(std::span<const std::string_view> tokens, std::span<int32_t> ids) const;
  // Nothing for ids that no token has; a token may be the empty string.
  std::optional<std::string_view> token(int64_t id) const;
  size_t count() const { return entries_.size(); }
  // Highest id + 1.
  int32_t end_id() const { return static_cast<int32_t>(by_id_.size()); }

 private:
  struct Entry {
    size_t offset;
    uint32_t size;
    uint32_t hash;
    int32_t id;
  };
  std::string_view text(const Entry& e) const { return std::string_view(pool_).substr(e.offset, e.size); }
  size_t slot_of(std::string_view token, uint32_t hash) const;
  void index_texts();
  void index_ids();

  std::string pool_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // open addressing: entry index + 1, 0 = free
  std::vector<uint32_t> by_id_;  // entry index + 1, 0 = gap
};

}  // namespace expert
