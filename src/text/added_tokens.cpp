#include "text/added_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "text/unicode.h"

namespace expert {
namespace {

constexpr size_t kLongestToken = 4096;  // bytes; keeps the search linear in the text whatever the file says

bool is_word(char32_t c) { return (unicode::class_of(c) & unicode::kWord) != 0; }
bool is_space(char32_t c) { return (unicode::class_of(c) & unicode::kSpace) != 0; }

bool word_before(std::string_view text, size_t pos) { return pos > 0 && is_word(unicode::previous_char(text, pos)); }
bool word_behind(std::string_view text, size_t pos) {
  return pos < text.size() && is_word(unicode::next_char(text, pos));
}

size_t skip_spaces_back(std::string_view text, size_t pos, size_t limit) {
  while (pos > limit && is_space(unicode::previous_char(text, pos))) {
    do --pos;
    while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  }
  return pos;
}

size_t skip_spaces(std::string_view text, size_t pos) {
  for (size_t next = pos; pos < text.size(); pos = next)
    if (!is_space(unicode::next_char(text, next))) break;
  return pos;
}

}  // namespace

void StringMatcher::add(std::string_view text, uint32_t value) {
  first_[static_cast<unsigned char>(text.front())] = true;
  uint32_t node = 0;
  for (const char c : text) {
    const auto fresh = static_cast<uint32_t>(values_.size());
    const auto [edge, added] = edges_.try_emplace(uint64_t{node} << 8 | static_cast<unsigned char>(c), fresh);
    if (added) values_.push_back(kNone);
    node = edge->second;
  }
  if (values_[node] == kNone) values_[node] = value;
}

std::optional<StringMatcher::Match> StringMatcher::find(std::string_view text, size_t pos) const {
  for (; pos < text.size(); ++pos) {
    if (!first_[static_cast<unsigned char>(text[pos])]) continue;
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t end = pos; end < text.size(); ++end) {
      const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[end]));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (values_[node] != kNone) longest = Match{pos, end + 1, values_[node]};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

int32_t AddedTokens::add(const AddedToken& token, const Vocab& vocab) {
  if (token.content.empty()) fail(ErrorCode::load, "an added token is empty");
  if (token.content.size() > kLongestToken)
    fail(ErrorCode::load, "an added token is {} bytes long, at most {} are allowed", token.content.size(),
         kLongestToken);
  if (token.special) special_.insert(token.content);
  if (const auto known = find(token.content)) return *known;
  // The count of tokens, not the highest id: this is where `tokenizers` goes on counting.
  const int32_t id = vocab.find(token.content).value_or(std::max(static_cast<int32_t>(vocab.count()), end_id_));
  by_content_.emplace(token.content, tokens_.size());
  by_id_[id] = tokens_.size();
  tokens_.push_back(token);
  ids_.push_back(id);
  end_id_ = std::max(end_id_, id + 1);
  return id;
}

void AddedTokens::finish(const Normalizer* normalizer) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    bool at_text_start = true;
    texts_.push_back(token.normalized && normalizer ? normalizer->normalize(token.content, at_text_start)
                                                    : token.content);
    if (texts_[i].empty())
      fail(ErrorCode::unsupported, "normalization leaves nothing of added token '{}'", token.content);
    (token.normalized ? normalized_ : plain_).add(texts_[i], static_cast<uint32_t>(i));
  }
}

void AddedTokens::extract(Pieces& pieces, bool normalized, bool special_in_text) const {
  const StringMatcher& matcher = normalized ? normalized_ : plain_;
  pieces.split([&](std::string_view text, std::vector<Piece>& parts) { cut(text, matcher, special_in_text, parts); });
}

void AddedTokens::cut(std::string_view text, const StringMatcher& matcher, bool special_in_text,
                      std::vector<Piece>& parts) const {
  size_t done = 0;
  for (size_t pos = 0; const auto match = matcher.find(text, pos);) {
    pos = match->end;
    const AddedToken& token = tokens_[match->value];
    if (!special_in_text && is_special(token.content)) continue;
    if (token.single_word && (word_before(text, match->begin) || word_behind(text, match->end))) continue;
    size_t begin = match->begin, end = match->end;
    // Space that the token before took is taken: one that begins inside it counts from there, or not at all.
    if (token.lstrip) begin = std::max(done, skip_spaces_back(text, begin, std::min(begin, done)));
    if (token.rstrip) end = skip_spaces(text, end);
    if (begin >= end) continue;
    if (done < begin) parts.push_back({done, begin});
    parts.push_back({begin, end, ids_[match->value]});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size()});
}

std::optional<int32_t> AddedTokens::find(std::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  return it == by_content_.end() ? std::nullopt : std::optional(ids_[it->second]);
}

std::optional<std::string_view> AddedTokens::token(int64_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? std::nullopt : std::optional<std::string_view>(texts_[it->second]);
}

}  // namespace expert
