#include "text/split_pattern.h"

#include "text/unicode.h"

namespace expert {
namespace {

using unicode::class_of;
using unicode::kLetter;
using unicode::kNumber;
using unicode::kSpace;
using unicode::next_char;

constexpr uint8_t kVisible = kLetter | kNumber | kSpace;  // [^\s\p{L}\p{N}] is what has none of these

bool is_newline(char c) { return c == '\n' || c == '\r'; }

// Position behind the run of characters from pos on whose class, cut to `mask`, is `wanted` (one bit, or 0 for none).
template <uint8_t mask, bool wanted>
size_t skip_run(std::string_view text, size_t pos, size_t limit = static_cast<size_t>(-1)) {
  while (pos < text.size() && limit-- > 0) {
    size_t next = pos;
    if (((class_of(next_char(text, next)) & mask) != 0) != wanted) break;
    pos = next;
  }
  return pos;
}

size_t skip_letters(std::string_view text, size_t pos) { return skip_run<kLetter, true>(text, pos); }
size_t skip_symbols(std::string_view text, size_t pos) { return skip_run<kVisible, false>(text, pos); }

// 's|'t|'re|'ve|'m|'ll|'d at text[pos] == '\''; 0 where there is none. Folding case, U+017F is an s too.
size_t match_contraction(std::string_view text, size_t pos, bool fold) {
  const auto letter = [&](size_t at) -> char {
    if (at >= text.size()) return '\0';
    const char c = text[at];
    return fold && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  };
  const char first = letter(pos + 1), second = letter(pos + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) return 3;
  if (fold && text.substr(pos + 1, 2) == "\u017F") return 3;
  return 0;
}

// \s+(?!\S)|\s+ : a run of spaces leaves its last one to the word behind it.
size_t match_spaces(std::string_view text, size_t pos) {
  size_t last = pos, end = pos;
  while (end < text.size()) {
    size_t next = end;
    if ((class_of(next_char(text, next)) & kSpace) == 0) break;
    last = end;
    end = next;
  }
  return (end < text.size() && last > pos ? last : end) - pos;
}

// \s*[\r\n]+ : up to the last newline of a run of spaces; 0 where it holds none.
size_t match_newlines(std::string_view text, size_t pos) {
  size_t behind_newline = pos;
  for (size_t end = pos; end < text.size();) {
    const char c = text[end];
    if ((class_of(next_char(text, end)) & kSpace) == 0) break;
    if (is_newline(c)) behind_newline = end;
  }
  return behind_newline - pos;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <size_t digits>
size_t match_cl100k(std::string_view text, size_t pos) {
  const char first = text[pos];
  if (first == '\'') {
    if (const size_t size = match_contraction(text, pos, true)) return size;
  }
  size_t next = pos;
  const uint8_t kind = class_of(next_char(text, next));
  if ((kind & kLetter) != 0) return skip_letters(text, next) - pos;
  if ((kind & kNumber) != 0) return skip_run<kNumber, true>(text, next, digits - 1) - pos;
  if (!is_newline(first)) {
    if (const size_t end = skip_letters(text, next); end > next) return end - pos;
  }
  if (const size_t begin = first == ' ' ? next : pos; true) {
    size_t end = skip_symbols(text, begin);
    if (end > begin) {
      while (end < text.size() && is_newline(text[end])) ++end;
      return end - pos;
    }
  }
  if (const size_t size = match_newlines(text, pos)) return size;
  return match_spaces(text, pos);
}

}  // namespace

const std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

size_t match_gpt2(std::string_view text, size_t pos) {
  if (text[pos] == '\'') {
    if (const size_t size = match_contraction(text, pos, false)) return size;
  }
  const size_t begin = text[pos] == ' ' ? pos + 1 : pos;
  if (begin < text.size()) {
    size_t next = begin;
    const uint8_t kind = class_of(next_char(text, next)) & kVisible;
    if (kind == kLetter) return skip_letters(text, next) - pos;
    if (kind == kNumber) return skip_run<kNumber, true>(text, next) - pos;
    if (kind == 0) return skip_symbols(text, next) - pos;
  }
  return match_spaces(text, pos);
}

SplitPattern find_split_pattern(std::string_view regex) {
  if (regex == kGpt2Pattern) return match_gpt2;
  if (regex == kQwen2Pattern) return match_cl100k<1>;
  if (regex == kLlama3Pattern) return match_cl100k<3>;
  return nullptr;
}

}  // namespace expert
