// The regular expressions by which published byte-level tokenizers cut text into words, each written out by hand.
#pragma once

#include <cstddef>
#include <string_view>

namespace expert {

// Length in bytes of the match that begins at text[pos]; every one of these patterns matches at every position, so a
// text is cut by calling it again behind each match. Valid UTF-8, pos < text.size(); linear in total over a text.
using SplitPattern = size_t (*)(std::string_view text, size_t pos);

extern const std::string_view kGpt2Pattern;    // GPT-2, and every ByteLevel pre-tokenizer with use_regex
extern const std::string_view kQwen2Pattern;   // Qwen2, Qwen2.5, Qwen3: one digit at a time
extern const std::string_view kLlama3Pattern;  // Llama 3 and cl100k: up to three digits

size_t match_gpt2(std::string_view text, size_t pos);

// The matcher for exactly this regular expression, or nullptr where it is not known.
SplitPattern find_split_pattern(std::string_view regex);

}  // namespace expert
