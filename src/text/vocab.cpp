#include "text/vocab.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>

#include "core/error.h"

namespace expert {
namespace {

// Tokens come from files: a hostile one may make them collide, and then reading it takes long.
uint32_t hash_of(std::string_view token) { return static_cast<uint32_t>(std::hash<std::string_view>{}(token)); }

}  // namespace

size_t Vocab::slot_of(std::string_view token, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = hash & mask;
  while (slots_[slot] != 0) {
    const Entry& entry = entries_[slots_[slot] - 1];
    if (entry.hash == hash && text(entry) == token) break;
    slot = (slot + 1) & mask;
  }
  return slot;
}

void Vocab::add(std::string_view token, int64_t id) {
  if (id < 0 || id > std::numeric_limits<int32_t>::max() - 1)
    fail(ErrorCode::load, "token '{}' has id {}, which is not a token id", token, id);
  entries_.push_back({pool_.size(), static_cast<uint32_t>(token.size()), hash_of(token), static_cast<int32_t>(id)});
  pool_.append(token);
}

void Vocab::index_texts() {
  size_t size = 16;
  while (size < entries_.size() * 2) size *= 2;
  slots_.assign(size, 0);
  constexpr size_t kAhead = 16;  // the table is larger than the caches
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (i + kAhead < entries_.size()) __builtin_prefetch(&slots_[entries_[i + kAhead].hash & (size - 1)], 1);
    const std::string_view token = text(entries_[i]);
    const size_t slot = slot_of(token, entries_[i].hash);
    if (slots_[slot] != 0) fail(ErrorCode::load, "the vocabulary lists token '{}' twice", token);
    slots_[slot] = static_cast<uint32_t>(i + 1);
  }
}

void Vocab::index_ids() {
  const size_t limit = entries_.size() * 8 + 65536;
  for (const Entry& entry : entries_) {
    if (static_cast<size_t>(entry.id) >= limit)
      fail(ErrorCode::load, "token '{}' has id {}, far beyond the {} tokens of the vocabulary", text(entry), entry.id,
           entries_.size());
    if (static_cast<size_t>(entry.id) >= by_id_.size()) by_id_.resize(static_cast<size_t>(entry.id) + 1);
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    uint32_t& place = by_id_[static_cast<size_t>(entries_[i].id)];
    if (place != 0)
      fail(ErrorCode::load, "tokens '{}' and '{}' share id {}", text(entries_[place - 1]), text(entries_[i]),
           entries_[i].id);
    place = static_cast<uint32_t>(i + 1);
  }
}

void Vocab::finish() {
  index_texts();
  index_ids();
}

std::optional<int32_t> Vocab::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const uint32_t entry = slots_[slot_of(token, hash_of(token))];
  if (entry == 0) return std::nullopt;
  return entries_[entry - 1].id;
}

void Vocab::find_all(std::span<const std::string_view> tokens, std::span<int32_t> ids) const {
  if (slots_.empty()) return std::fill(ids.begin(), ids.end(), -1);
  constexpr size_t kAtOnce = 64;
  std::array<uint32_t, kAtOnce> hashes{};
  const auto first_slot = [&](size_t i) { return slots_[hashes[i] & (slots_.size() - 1)]; };
  for (size_t start = 0; start < tokens.size(); start += kAtOnce) {
    const auto some = tokens.subspan(start, std::min(kAtOnce, tokens.size() - start));
    for (size_t i = 0; i < some.size(); ++i) {
      hashes[i] = hash_of(some[i]);
      __builtin_prefetch(&slots_[hashes[i] & (slots_.size() - 1)]);
    }
    for (size_t i = 0; i < some.size(); ++i)
      if (const uint32_t entry = first_slot(i)) __builtin_prefetch(&entries_[entry - 1]);
    for (size_t i = 0; i < some.size(); ++i)
      if (const uint32_t entry = first_slot(i)) __builtin_prefetch(pool_.data() + entries_[entry - 1].offset);
    for (size_t i = 0; i < some.size(); ++i) {
      const uint32_t entry = slots_[slot_of(some[i], hashes[i])];
      ids[start + i] = entry == 0 ? -1 : entries_[entry - 1].id;
    }
  }
}

std::optional<std::string_view> Vocab::token(int64_t id) const {
  if (id < 0 || id >= end_id() || by_id_[static_cast<size_t>(id)] == 0) return std::nullopt;
  return text(entries_[by_id_[static_cast<size_t>(id)] - 1]);
}

}  // namespace expert
