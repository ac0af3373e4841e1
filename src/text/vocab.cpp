#include "text/vocab.h"

#include <functional>
#include <limits>

#include "core/error.h"

namespace expert {
namespace {

// Hash by eight bytes at a time; tokens come from files, so the worst a hostile one can do is what grow() bounds
// anyway.
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

void Vocab::grow() {
  const size_t size = slots_.empty() ? 1024 : slots_.size() * 2;
  slots_.assign(size, 0);
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t slot = entries_[i].hash & (size - 1);
    while (slots_[slot] != 0) slot = (slot + 1) & (size - 1);
    slots_[slot] = static_cast<uint32_t>(i + 1);
  }
}

void Vocab::add(std::string_view token, int64_t id) {
  if (id < 0 || id > std::numeric_limits<int32_t>::max() - 1)
    fail(ErrorCode::load, "token '{}' has id {}, which is not a token id", token, id);
  if ((entries_.size() + 1) * 2 > slots_.size()) grow();
  const uint32_t hash = hash_of(token);
  const size_t slot = slot_of(token, hash);
  if (slots_[slot] != 0) fail(ErrorCode::load, "the vocabulary lists token '{}' twice", token);
  entries_.push_back({pool_.size(), static_cast<uint32_t>(token.size()), hash, static_cast<int32_t>(id)});
  pool_.append(token);
  slots_[slot] = static_cast<uint32_t>(entries_.size());
}

void Vocab::finish() {
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

std::optional<int32_t> Vocab::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const uint32_t entry = slots_[slot_of(token, hash_of(token))];
  if (entry == 0) return std::nullopt;
  return entries_[entry - 1].id;
}

std::optional<std::string_view> Vocab::token(int64_t id) const {
  if (id < 0 || id >= end_id() || by_id_[static_cast<size_t>(id)] == 0) return std::nullopt;
  return text(entries_[by_id_[static_cast<size_t>(id)] - 1]);
}

}  // namespace expert
