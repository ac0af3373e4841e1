// Byte-pair encoding of one pre-token, equal to the BPE model of Hugging Face `tokenizers`.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/vocab.h"

namespace expert {

struct BpeOptions {
  std::optional<std::string> unk_token;
  bool fuse_unk = false;       // consecutive unknown characters become one unk token
  bool byte_fallback = false;  // an unknown character becomes its bytes' tokens "<0x0A>" where all of them exist
  bool ignore_merges = false;  // a pre-token that is itself a token is taken whole
};

// Immutable after finish(); encode() may be called from any number of threads.
class Bpe {
 public:
  Bpe() = default;
  // Merges come in order of rank. Errors: load where a merge names or makes a token that is not in the vocabulary.
  Bpe(Vocab vocab, const std::vector<std::pair<std::string_view, std::string_view>>& merges, BpeOptions options);

  // Appends the ids of `piece` (valid UTF-8). A character that has no token, no bytes and no unk yields nothing.
  // Errors: invalid_request where unk is needed and is not in the vocabulary.
  // Time: n log n in the length of the piece.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;
  const Vocab& vocab() const { return vocab_; }

 private:
  struct Merge {
    uint64_t pair;  // left id << 32 | right id; kNoPair in free slots
    uint32_t rank;
    int32_t id;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  void add_merges(const std::vector<std::pair<std::string_view, std::string_view>>& merges);
  void add_some_merges(std::span<const std::pair<std::string_view, std::string_view>> merges, size_t first_rank);
  void index_characters();
  const Merge* find_merge(int32_t left, int32_t right) const;
  int32_t id_of_char(std::string_view text, char32_t c) const;
  bool append_bytes(std::string_view text, std::vector<int32_t>& symbols) const;
  void split_into_symbols(std::string_view piece, std::vector<int32_t>& symbols) const;
  void merge_short(std::vector<int32_t>& symbols) const;
  void merge_long(std::vector<int32_t>& symbols) const;

  Vocab vocab_;
  BpeOptions options_;
  std::vector<Merge> merges_;              // open addressing
  std::array<int32_t, 0x250> char_ids_{};  // ids of the first characters, which hold the byte-level alphabet; -1: none
  std::array<int32_t, 256> byte_ids_{};    // ids of "<0x00>" … "<0xFF>"; -1: none
  std::optional<int32_t> unk_id_;
};

}  // namespace expert
