// Tokens beside the model's vocabulary: found in the text before the model sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/normalizer.h"
#include "text/pieces.h"
#include "text/vocab.h"

namespace expert {

struct AddedToken {
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = true;    // is looked for in the normalized text
  bool special = false;
};

// Leftmost-longest search for a set of strings. Immutable after the last add(); time is text length × longest string.
class StringMatcher {
 public:
  // Of equal strings the first one counts. Not empty.
  void add(std::string_view text, uint32_t value);
  struct Match {
    size_t begin, end;
    uint32_t value;
  };
  std::optional<Match> find(std::string_view text, size_t pos) const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte → node
  std::vector<uint32_t> values_{kNone};           // of the string that ends in a node
  bool first_[256] = {};
};

// Immutable after finish(); any number of threads.
class AddedTokens {
 public:
  // As `tokenizers` does: a token of the vocabulary keeps its id, others get the ids behind the vocabulary, in order. A
  // content that was added before keeps its first flags, but may still become special. Returns the id. Errors: load for
  // a content that is empty or longer than 4096 bytes.
  int32_t add(const AddedToken& token, const Vocab& vocab);
  // Errors: unsupported where normalization leaves nothing of a token.
  void finish(const Normalizer* normalizer);

  // Cuts the open pieces at the tokens that are found as they stand (normalized = false) or in normalized text.
  void extract(Pieces& pieces, bool normalized, bool special_in_text) const;

  std::optional<int32_t> find(std::string_view content) const;
  // What stands for the token in a decoded text: its content, normalized if that is what is looked for. After finish().
  std::optional<std::string_view> token(int64_t id) const;
  // By content, as `tokenizers` decides it: so a special token that normalization changes is not left out of a decoded
  // text.
  bool is_special(std::string_view content) const { return special_.contains(std::string(content)); }
  bool has_id(int64_t id) const { return by_id_.contains(id); }
  int32_t end_id() const { return end_id_; }
  const std::vector<AddedToken>& list() const { return tokens_; }

 private:
  void cut(std::string_view text, const StringMatcher& matcher, bool special_in_text, std::vector<Piece>& parts) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::string> texts_;                      // of tokens_, see token()
  std::vector<int32_t> ids_;                            // of tokens_
  std::unordered_map<std::string, size_t> by_content_;  // index into tokens_
  std::unordered_map<int64_t, size_t> by_id_;
  std::unordered_set<std::string> special_;
  int32_t end_id_ = 0;
  StringMatcher plain_, normalized_;
};

}  // namespace expert
