#include "text/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "core/error.h"
#include "text/unicode.h"

namespace expert {
namespace {

constexpr size_t kShortPiece = 48;  // below this, scanning all pairs beats a heap
constexpr size_t kMergesAtOnce = 64;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

size_t hash_of(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15u;
  return static_cast<size_t>(pair ^ pair >> 32);
}

}  // namespace

Bpe::Bpe(Vocab vocab, const std::vector<std::pair<std::string_view, std::string_view>>& merges, BpeOptions options)
    : vocab_(std::move(vocab)), options_(std::move(options)) {
  if (options_.unk_token) unk_id_ = vocab_.find(*options_.unk_token);
  add_merges(merges);
  index_characters();
}

void Bpe::add_merges(const std::vector<std::pair<std::string_view, std::string_view>>& merges) {
  size_t size = 16;
  while (size < merges.size() * 2) size *= 2;
  merges_.assign(size, {kNoPair, 0, 0});
  for (size_t start = 0; start < merges.size(); start += kMergesAtOnce)
    add_some_merges(std::span(merges).subspan(start, std::min(kMergesAtOnce, merges.size() - start)), start);
}

// The tables are far larger than the caches, so memory is asked for many merges before it is waited for.
void Bpe::add_some_merges(std::span<const std::pair<std::string_view, std::string_view>> merges, size_t first_rank) {
  const size_t count = merges.size();
  std::string joined;
  for (const auto& [left, right] : merges) joined.append(left).append(right);
  std::vector<std::string_view> tokens;
  std::string_view rest = joined;
  for (const auto& [left, right] : merges) {
    const std::string_view whole = rest.substr(0, left.size() + right.size());
    tokens.insert(tokens.end(), {left, right, whole});
    rest.remove_prefix(whole.size());
  }
  std::vector<int32_t> ids(tokens.size());
  vocab_.find_all(tokens, ids);
  const auto missing = std::find(ids.begin(), ids.end(), -1);
  if (missing != ids.end()) {
    const auto at = static_cast<size_t>(missing - ids.begin());
    fail(ErrorCode::load, "merge {} needs token '{}', which is not in the vocabulary", first_rank + at / 3, tokens[at]);
  }
  const size_t mask = merges_.size() - 1;
  const auto pair = [&](size_t i) { return pair_of(ids[3 * i], ids[3 * i + 1]); };
  for (size_t i = 0; i < count; ++i) __builtin_prefetch(&merges_[hash_of(pair(i)) & mask], 1);
  for (size_t i = 0; i < count; ++i) {
    size_t slot = hash_of(pair(i)) & mask;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair(i)) slot = (slot + 1) & mask;
    // A repeated pair: the last one counts.
    merges_[slot] = {pair(i), static_cast<uint32_t>(first_rank + i), ids[3 * i + 2]};
  }
}

void Bpe::index_characters() {
  std::string text;
  for (char32_t c = 0; c < char_ids_.size(); ++c) {
    text.clear();
    unicode::append_utf8(text, c);
    char_ids_[c] = vocab_.find(text).value_or(-1);
  }
  byte_ids_.fill(-1);
  for (unsigned byte = 0; options_.byte_fallback && byte < 256; ++byte)
    byte_ids_[byte] = vocab_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
}

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t slot = hash_of(pair) & mask; merges_[slot].pair != kNoPair; slot = (slot + 1) & mask)
    if (merges_[slot].pair == pair) return &merges_[slot];
  return nullptr;
}

int32_t Bpe::id_of_char(std::string_view text, char32_t c) const {
  return c < char_ids_.size() ? char_ids_[c] : vocab_.find(text).value_or(-1);
}

bool Bpe::append_bytes(std::string_view text, std::vector<int32_t>& symbols) const {
  const auto id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (!std::all_of(text.begin(), text.end(), [&](char byte) { return id(byte) >= 0; })) return false;
  for (const char byte : text) symbols.push_back(id(byte));
  return true;
}

void Bpe::split_into_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
  // A pending unk is written only before the next known character, also when bytes come between: as `tokenizers` does.
  bool pending_unk = false;
  for (size_t pos = 0; pos < piece.size();) {
    const size_t begin = pos;
    const char32_t c = unicode::next_char(piece, pos);
    const std::string_view text = piece.substr(begin, pos - begin);
    if (const int32_t id = id_of_char(text, c); id >= 0) {
      if (pending_unk) symbols.push_back(*unk_id_);
      pending_unk = false;
      symbols.push_back(id);
    } else if (options_.byte_fallback && append_bytes(text, symbols)) {
      continue;
    } else if (options_.unk_token) {
      if (!unk_id_)
        fail(ErrorCode::invalid_request, "'{}' has no token, and unk_token '{}' is not in the vocabulary", text,
             *options_.unk_token);
      if (pending_unk && !options_.fuse_unk) symbols.push_back(*unk_id_);
      pending_unk = true;
    }
  }
  if (pending_unk) symbols.push_back(*unk_id_);
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (options_.ignore_merges) {
    if (const auto id = vocab_.find(piece)) return ids.push_back(*id);
  }
  if (piece.size() <= kShortPiece) {
    thread_local std::vector<int32_t> symbols;
    symbols.clear();
    split_into_symbols(piece, symbols);
    merge_short(symbols);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  } else {
    std::vector<int32_t> symbols;
    split_into_symbols(piece, symbols);
    merge_long(symbols);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  }
}

void Bpe::merge_short(std::vector<int32_t>& symbols) const {
  // At most kShortPiece symbols: a symbol takes at least one byte (a character of several bytes that falls back to
  // bytes gives one symbol each).
  std::array<const Merge*, kShortPiece> merges;  // merges[i] joins symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find_merge(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = count;
    uint32_t best_rank = ~uint32_t{0};
    for (size_t i = 0; i + 1 < count; ++i) {
      if (merges[i] != nullptr && merges[i]->rank < best_rank) {
        best = i;
        best_rank = merges[i]->rank;
      }
    }
    if (best == count) break;
    symbols[best] = merges[best]->id;
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) merges[i] = merges[i + 1];
    if (best + 1 < count) merges[best] = find_merge(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = find_merge(symbols[best - 1], symbols[best]);
  }
  symbols.resize(count);
}

void Bpe::merge_long(std::vector<int32_t>& symbols) const {
  struct Candidate {
    uint32_t rank;
    uint32_t left;  // index of the left symbol
    int32_t id;
    bool operator>(const Candidate& other) const { return std::pair(rank, left) > std::pair(other.rank, other.left); }
  };
  const auto size = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(size), previous(size);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](uint32_t left, uint32_t right) {
    if (const Merge* merge = find_merge(symbols[left], symbols[right])) queue.push({merge->rank, left, merge->id});
  };
  constexpr int32_t kGone = -1;
  for (uint32_t i = 0; i < size; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < size) consider(i, i + 1);
  }
  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    const uint32_t left = candidate.left, right = next[left];
    if (symbols[left] == kGone || right >= size) continue;
    const Merge* merge = find_merge(symbols[left], symbols[right]);
    if (merge == nullptr || merge->id != candidate.id) continue;  // made stale by an earlier merge
    symbols[left] = merge->id;
    symbols[right] = kGone;
    next[left] = next[right];
    if (next[left] < size) {
      previous[next[left]] = left;
      consider(left, next[left]);
    }
    if (left > 0) consider(previous[left], left);
  }
  std::erase(symbols, kGone);
}

}  // namespace expert
